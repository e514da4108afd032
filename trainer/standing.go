package trainer

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/lapwing-stream/lapwing/kernels"
)

// standing is how a contest stands between two stretches, with what came before it: all that another process needs to go on to the
// same bytes. Which networks learn at once is part of it: those of a checkpoint go on together, whatever memory there is now.
type standing struct {
	First    int   // which candidate the first network is
	Step     int   // made in this lap
	Order    place // of the training rows
	Networks []networkStanding

	Tried      []Candidate   // those before First
	Best       *descentState // of those, the best so far, with its best weights alone; nil: none
	BestNumber int           // in Tried
}

// networkStanding is one network of a contest.
type networkStanding struct {
	descentState // with weights and moments only while it is on
	On           bool
	Diverged     *divergence // in this lap: it begins again after it
	Fault        string
	Seconds      float64
}

// fill puts the contest as it stands into a checkpoint.
func (c *contest) fill(to *checkpoint) {
	s := &standing{First: c.first, Step: c.step, Order: c.order.place(), Tried: slices.Clone(c.all[:c.first])}
	if c.best != nil {
		best := c.best.state
		s.Best, s.BestNumber = &best, slices.IndexFunc(s.Tried, func(k Candidate) bool { return k.Varies == c.best.Varies })
	}
	for k, r := range c.runners {
		n := networkStanding{descentState: r.state, On: c.on[k], Diverged: c.diverged[k], Fault: r.Fault, Seconds: r.Seconds}
		n.Curve = slices.Clone(n.Curve)
		if n.On {
			n.Weights, n.Moments = c.cohort.Parameters(k), c.cohort.Moments(k)
		}
		s.Networks = append(s.Networks, n)
	}
	to.State, to.Contest = descentState{Step: c.step}, s
}

// check says why candidates that vary so in runs of so many steps cannot go on from here.
func (s *standing) check(all []varied, total int) error {
	if s == nil {
		return errors.New("it holds one network")
	}
	if len(s.Networks) == 0 || s.First < 0 || s.First > len(all) || len(s.Networks) > len(all)-s.First || len(s.Tried) != s.First || s.Step < 0 || s.Step > total {
		return fmt.Errorf("step %d of %d networks from number %d on, %d before; there are %d candidates and %d steps", s.Step, len(s.Networks), s.First+1, len(s.Tried), len(all), total)
	}
	for i, k := range s.Tried {
		if k.Varies != all[i].name {
			return fmt.Errorf("candidate %d is %s, and was %s", i+1, all[i].name, k.Varies)
		}
	}
	if s.Best != nil && (s.BestNumber < 0 || s.BestNumber >= len(s.Tried)) {
		return fmt.Errorf("number %d of %d is the best", s.BestNumber+1, len(s.Tried))
	}
	for _, n := range s.Networks {
		if n.Step < 0 || n.Step > total || n.Try < 0 || n.Try > retries {
			return fmt.Errorf("step %d of try %d; there are %d steps and %d tries", n.Step, n.Try+1, total, retries+1)
		}
	}
	return nil
}

// restore makes the contest, whose networks are new, go on from where another stood.
func (c *contest) restore(s *standing) error {
	for k, r := range c.runners {
		n := s.Networks[k]
		c.on[k], c.diverged[k], r.Fault, r.Seconds, r.state = n.On, n.Diverged, n.Fault, n.Seconds, n.descentState
		r.state.Weights, r.state.Moments = nil, kernels.Moments{}
		if n.BestWeights != nil {
			if err := kernels.SameShape(c.cohort.Parameters(k), n.BestWeights); err != nil {
				return fmt.Errorf("the best weights of %s: %w", r.Varies, err)
			}
			c.all[c.first+k].ValidationLoss = n.Lowest
		}
		if !n.On {
			r.Steps = n.Step
			continue
		}
		if err := c.cohort.SetParameters(k, n.Weights); err != nil {
			return fmt.Errorf("%s: %w", r.Varies, err)
		}
		if err := c.cohort.SetMoments(k, n.Moments); err != nil {
			return fmt.Errorf("%s: %w", r.Varies, err)
		}
	}
	c.order, c.step = c.plan.h.epochs(c.plan.train, c.Seed), s.Step
	return c.order.seek(s.Order)
}

// best is the competitor that was the best of those before; nil where there is none.
func (s *standing) best(all []varied, made func(varied) (*competitor, error)) (*competitor, error) {
	if s.Best == nil {
		return nil, nil
	}
	k, err := made(all[s.BestNumber])
	if err != nil {
		return nil, err
	}
	k.Candidate, k.state = s.Tried[s.BestNumber], *s.Best
	if math.IsInf(k.state.Lowest, 1) {
		return nil, fmt.Errorf("%s has no best weights", k.Varies)
	}
	return k, adopt(k.program, k.state.BestWeights)
}
