//go:build cgo

package main

// #include "gangline.h"
import "C"

import (
	"time"
	"unsafe"

	"github.com/gangline/gangline/libgangline/session"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

//export goReportStep
func goReportStep(step, total C.int64_t, dataEpoch C.double, metrics C.int32_t, names **C.char, values *C.double) C.int32_t {
	return enter(func() error {
		p := workerclient.Progress{Step: int64(step), TotalSteps: int64(total), DataEpoch: float64(dataEpoch)}
		m, err := metricsOf(metrics, names, values)
		if err != nil {
			return err
		}
		p.Metrics = m
		return process.ReportProgress(p)
	})
}

// metricsOf copies names and values.
func metricsOf(count C.int32_t, names **C.char, values *C.double) (map[string]float64, error) {
	if count < 0 || count > 0 && (names == nil || values == nil) {
		return nil, session.ErrArgument("metrics: a negative number, or no names or values")
	}
	m := make(map[string]float64, int(count))
	all := unsafe.Slice(values, int(count))
	for i, name := range unsafe.Slice(names, int(count)) {
		m[text(name)] = float64(all[i])
	}
	return m, nil
}

//export goStopRequested
func goStopRequested(asked *C.int32_t, reason *C.char, room C.int32_t, terminate, kill *C.int64_t) C.int32_t {
	return enter(func() error {
		if asked == nil {
			return session.ErrArgument("stop requested: no place for the answer")
		}
		stop, err := process.StopRequested()
		*asked = 0
		if err != nil || !stop.Asked {
			return err
		}
		*asked = 1
		if terminate != nil {
			*terminate = C.int64_t(time.Until(stop.Terminate).Milliseconds())
		}
		if kill != nil {
			*kill = C.int64_t(time.Until(stop.Kill).Milliseconds())
		}
		return put(reason, room, stop.Reason, true)
	})
}

//export goNewestFormation
func goNewestFormation(formation *C.int32_t) C.int32_t {
	return enter(func() error {
		n, err := process.NewestFormation()
		if err != nil || formation == nil {
			return orPlace(err, "newest formation")
		}
		*formation = C.int32_t(n) //nolint:gosec // small
		return nil
	})
}

//export goSaveDue
func goSaveDue(step C.int64_t, due, known *C.int32_t) C.int32_t {
	return enter(func() error {
		if due == nil || known == nil {
			return errPlace("save due")
		}
		now, told, err := process.SaveDue(int64(step))
		*due, *known = number(now), number(told)
		return err
	})
}

func number(yes bool) C.int32_t {
	if yes {
		return 1
	}
	return 0
}

//export goReportPeerLost
func goReportPeerLost(rank C.int32_t, cause *C.char) C.int32_t {
	return enter(func() error { return process.ReportPeerLost(int(rank), text(cause)) })
}

//export goAgentClose
func goAgentClose() C.int32_t { return enter(process.CloseAgent) }
