package trainer

import "time"

// paceMarks is how many points of a stage are remembered, about.
const paceMarks = 128

// pace foretells when a stage ends, from how far it was when. What it takes is the rate of the last half of the time spent:
// the first moments, when connections open and caches are cold, then soon have no say, and a rate that changes on the way, as
// when rows begin to go to a file, is followed, while a rate of the last seconds alone would jump.
//
// For a stage whose rate is steady after its first twentieth, the end foretold is right within a fifth of the whole from the first
// tenth on.
type pace struct {
	total float64
	marks []mark
	next  float64 // what was done when the next mark is due
}

type mark struct {
	at   time.Time
	done float64
}

// newPace begins a stage of the given amount of work.
func newPace(total int64, now time.Time) *pace {
	return &pace{total: float64(total), marks: []mark{{now, 0}}}
}

// left is how long the rest takes, when so much is done now; 0 = not known yet, or nothing is left.
func (p *pace) left(done int64, now time.Time) time.Duration {
	d := float64(done)
	if d <= 0 || d >= p.total {
		return 0
	}
	half := p.marks[0].at.Add(now.Sub(p.marks[0].at) / 2)
	from := p.marks[0]
	for _, m := range p.marks {
		if m.at.After(half) {
			break
		}
		from = m
	}
	if d >= p.next {
		p.marks = append(p.marks, mark{now, d})
		p.next = d + p.total/paceMarks
	}
	spent, gained := now.Sub(from.at), d-from.done
	if spent <= 0 || gained <= 0 {
		return 0
	}
	return time.Duration(float64(spent) / gained * (p.total - d))
}
