package control

import "time"

// Pace sets how often the Stepper looks at more than what has changed from now
// on, instead of Config.Thorough. Who steps under a virtual clock looks more
// seldom the further it is ahead.
func (st *Stepper) Pace(d time.Duration) { st.cfg.Thorough = d }
