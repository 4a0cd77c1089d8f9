// Package s3test gives tests a real S3 server, versitygw, that can be killed, started again and cut off.
//
// Start is all there is to begin with. Only tests import it. Where the server's program is not built, tests that ask for one are skipped.
package s3test
