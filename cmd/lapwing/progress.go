package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
	"github.com/lapwing-stream/lapwing/trainer"
)

// plainEvery is how often a piped training says where it is.
const plainEvery = 10 * time.Second

// progress shows a training run: on a terminal a block that is redrawn, else a line now and then.
type progress struct {
	a            *app
	model, topic string
	wanted       bool
	live         *liveBlock
	stage        string
	said         time.Time
	begun        time.Time // of the stage
	done         []string  // a line for each finished stage
	last         trainer.Progress
	device       func() kernels.DeviceStatus // of the engine; nil = it computes on the processors
	busy         time.Duration               // of the device, when the stage began
}

func (a *app) startProgress(model, topic string, wanted bool) *progress {
	p := &progress{a: a, model: model, topic: topic, wanted: wanted}
	if wanted {
		p.live = a.term.startLive()
	}
	return p
}

// show takes one report of trainer.Run, in Run's goroutine.
func (p *progress) show(r trainer.Progress) {
	if !p.wanted {
		return
	}
	now := time.Now()
	if r.Stage != p.stage {
		p.finish()
		p.stage, p.begun, p.said = r.Stage, now, now
		if p.device != nil {
			p.busy = p.device().Busy
		}
	}
	p.last = r
	p.last.Candidates = slices.Clone(r.Candidates)
	if p.live != nil {
		p.live.draw(append(append(append([]string{}, p.done...), p.line(r)), candidateLines(r)...))
		return
	}
	if now.Sub(p.said) >= plainEvery {
		p.said = now
		p.a.printf("%s\n", p.text(r)+left(r))
	}
}

// left says how long the running stage will still take, once that is known.
func left(r trainer.Progress) string {
	if r.Left <= 0 {
		return ""
	}
	return "  " + seconds(r.Left) + " left"
}

// finish turns the running stage into a line that stays.
func (p *progress) finish() {
	if p.stage == "" || p.stage == "trim" && p.last.Records == 0 { // a single column is not trimmed
		return
	}
	text := p.text(p.last) + "  in " + seconds(time.Since(p.begun))
	if p.live != nil {
		p.done = append(p.done, p.a.term.paint(green, "✓ ")+text)
		return
	}
	p.a.printf("%s\n", text)
}

// end takes the block off; what was finished stays where it went well.
func (p *progress) end(well bool) {
	if !p.wanted {
		return
	}
	if well {
		p.finish()
		p.live.draw(p.done)
		p.live.close()
		return
	}
	p.live.clear()
}

// stageNames are what a reader calls the trainer's stages, of one width.
var stageNames = map[string]string{"read": "read   ", "trim": "trim   ", "fit": "train  ", "keys": "train  ", "judge": "judge  ", "publish": "publish"}

func (p *progress) line(r trainer.Progress) string {
	t := p.a.term
	width, _ := t.size()
	s := "  " + p.text(r) + left(r)
	if room := min(width-cells(s)-2, 30); room >= 8 {
		s += "  " + t.bar(r.Done, room)
	}
	return s
}

// text says where a stage stands: the same words on a terminal and in a pipe.
func (p *progress) text(r trainer.Progress) string {
	name := stageNames[r.Stage]
	if name == "" {
		name = r.Stage
	}
	s := p.a.term.paint(bold, name)
	switch r.Stage {
	case "keys":
		s += fmt.Sprintf("  %s of %s models", count(r.Records), count(r.TotalRecords)) + p.gpu()
	case "fit":
		if r.Candidates != nil {
			s += candidatesText(r) + p.gpu()
			break
		}
		if r.Epochs > 0 {
			s += fmt.Sprintf("  epoch %d/%d", min(max(r.Epoch, 1), r.Epochs), r.Epochs)
		}
		s += fmt.Sprintf("  loss %s  validation %s", loss(r.Train), loss(r.Validation))
		if r.SamplesPerSecond > 0 {
			s += "  " + rate(r.SamplesPerSecond)
		}
		s += p.gpu()
	case "publish":
		s += "  " + p.model
	default:
		s += fmt.Sprintf("  %s records", count(r.Records))
		if r.Stage == "read" {
			s += " of " + clean(p.topic)
		}
		if r.RecordsPerSecond > 0 {
			s += "  " + rate(r.RecordsPerSecond)
		}
		s += behind(r.Partitions)
	}
	return s
}

// behind says how many partitions have been read, and which is the furthest from its end: that is where a broker or disk is slow, or
// most of the history. Nothing when all are done.
func behind(partitions []trainer.PartitionProgress) string {
	if len(partitions) < 2 {
		return ""
	}
	done, slowest := 0, 0
	for i := range partitions {
		if partitions[i].At >= partitions[i].To {
			done++
		}
		if partitions[i].Done() < partitions[slowest].Done() {
			slowest = i
		}
	}
	if done == len(partitions) {
		return ""
	}
	p := &partitions[slowest]
	return fmt.Sprintf("  %d of %d partitions, slowest: %d at %.0f %%", done, len(partitions), p.Partition, math.Floor(100*p.Done()))
}

// gpu says how much of the stage the device was at work, and how much of its memory is held; nothing of a device that had no part.
func (p *progress) gpu() string {
	if p.device == nil {
		return ""
	}
	d, took := p.device(), time.Since(p.begun)
	if d.Busy <= p.busy || took <= 0 {
		return ""
	}
	return fmt.Sprintf("  GPU %.0f %% busy, %s of %s", 100*min(1, float64(d.Busy-p.busy)/float64(took)), gibibytes(d.Held), gibibytes(d.Memory))
}

// loss is a training loss with four digits; "-" before there is one.
func loss(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
