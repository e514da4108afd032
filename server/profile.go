package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/pprof"
	"strconv"
	"sync"

	"github.com/grafana/pyroscope-go"
)

// Labels of profiles. A goroutine wears them from one model to the next, so they cost nothing for a batch.
const (
	labelStage   = "stage"
	labelModel   = "model"
	labelVersion = "version"
)

func profileLabels(stage string, l *liveModel) context.Context {
	return pprof.WithLabels(context.Background(), pprof.Labels(
		labelStage, stage, labelModel, l.ref.Name, labelVersion, strconv.Itoa(l.version)))
}

// Profile pushes CPU and allocation profiles of this process until stop is called. Without a URL it does nothing.
// A receiver that cannot be reached costs nothing and is logged once, until it has answered again.
func Profile(log *slog.Logger, o ProfileOptions) (stop func(), err error) {
	if o.URL == "" {
		return func() {}, nil
	}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	defaulted(&o.Name, "lapwing")
	p, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: o.Name, ServerAddress: o.URL,
		BasicAuthUser: o.User, BasicAuthPassword: o.Password,
		UploadRate: o.Interval, Logger: &profileLog{log: log},
		// Without forced collections: a profile must not change what it looks at.
		DisableGCRuns: true,
		ProfileTypes: []pyroscope.ProfileType{
			pyroscope.ProfileCPU, pyroscope.ProfileAllocObjects, pyroscope.ProfileAllocSpace, pyroscope.ProfileInuseSpace,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("pyroscope: %w", err)
	}
	return sync.OnceFunc(func() { _ = p.Stop() }), nil
}

// profileLog lets the first failure through.
type profileLog struct {
	log  *slog.Logger
	once sync.Once
}

func (*profileLog) Infof(string, ...any)  {}
func (*profileLog) Debugf(string, ...any) {}
func (l *profileLog) Errorf(format string, args ...any) {
	l.once.Do(func() {
		l.log.Warn("profiles cannot be pushed; said once, tried on", "error", fmt.Sprintf(format, args...))
	})
}
