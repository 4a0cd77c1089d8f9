package replica

const childDirEnv = "GANGLINE_REPLICA_CHILD_DIR"

func childMain(string) int { return 0 }
