package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/lapwing-stream/lapwing/kernels"
)

// A device may compute wrong numbers without an error. Two things give it away: a loss that a processor does not come to with the same
// weights, and a divergence that does not come again, as what a device computes has no chance in it. Then the run goes back to the last
// state that was proved, on the device anew, and comes to the bytes of an undisturbed one. A device that is wrong again has had its chance.

// proof is what a descent on a device can go back to.
type proof struct {
	renew   func() (kernels.Trainer, error) // makes another trainer, with memory of its own on the device
	good    descentState                    // the last whose loss was also the processor's
	at      time.Time                       // of it
	doubted *divergence                     // that has come once since
}

// proofRows bounds what a comparison costs: a millisecond for usual networks, a second for the widest.
const proofRows = 256

// closeTo tells whether two losses over the same rows may be those of two orders of summing. Roots of losses are residuals, in
// the units of the maps, where a column's spread is about one: sums of float32 leave them a millionth apart, and the portable code, which
// rounds twice where others round once, some millionths.
func closeTo(a, b float64) bool {
	const apart = 1e-4
	return finite(a) && finite(b) && math.Abs(math.Sqrt(a)-math.Sqrt(b)) <= apart*(1+math.Sqrt(b)) || !finite(a) && !finite(b)
}

// wrongNumbers says how a device gave itself away.
type wrongNumbers struct{ how string }

func (w *wrongNumbers) Error() string { return "the GPU computed wrong numbers: " + w.how }

// proved makes the state one to go back to.
func (d *descent) proved() {
	if d.device != nil {
		d.proof.good, d.proof.at = d.save(), time.Now()
	}
}

// prove compares where now is set or it is time to.
func (d *descent) prove(now bool) error {
	if d.device == nil {
		return nil
	}
	if once := d.proof.doubted; once != nil && (d.Step >= once.step || d.settled(&d.descentState)) {
		d.proof.doubted = nil
		return &wrongNumbers{fmt.Sprintf("training diverged in step %d, and not when it came there again", once.step)}
	}
	if !now && time.Since(d.proof.at) < d.device.SelfTest() {
		return nil
	}
	loss, err := d.compare()
	if err != nil {
		return err
	}
	// Weights that are about to be found diverged are not gone back to: a bit of theirs may have changed, and with them both losses.
	if loss <= divergedFactor*max(d.Untrained, 1) {
		d.proved()
	}
	return nil
}

// compare holds the device's loss over some of the rows held back to the processor's, which it returns.
func (d *descent) compare() (float64, error) {
	rows := d.held[:min(len(d.held), proofRows*d.h.width)]
	loss, err := d.trainer.Loss(rows)
	if err != nil {
		return 0, err
	}
	want, err := d.device.Beside(rows)
	if err == nil && !closeTo(loss, want) {
		err = &wrongNumbers{fmt.Sprintf("after step %d its loss is %.6g and the CPU's %.6g with the same weights", d.Step, loss, want)}
	}
	return want, err
}

// trusted is run, on a device whose numbers are held to a processor's. A divergence that it returns has come twice. Whatever it returns,
// the state is one to go on from.
func (d *descent) trusted(ctx context.Context) error {
	if d.device == nil {
		return d.run(ctx)
	}
	for {
		_, err := d.compare()
		if err == nil {
			err = d.run(ctx)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
			if d.prove(true) != nil {
				err = errors.Join(err, d.restore(d.proof.good))
			}
			return err
		}
		var diverged *divergence
		var wrong *wrongNumbers
		switch once := d.proof.doubted; {
		case asDivergence(err, &diverged) && once == nil:
		case diverged != nil && *once == *diverged:
			d.proof.doubted = nil
			return err
		case diverged != nil:
			wrong = &wrongNumbers{fmt.Sprintf("training diverged in step %d, and in step %d when it was made again", once.step, diverged.step)}
		case !errors.As(err, &wrong):
			return &DeviceError{Cause: err}
		}
		if err = d.restore(d.proof.good); err != nil {
			return err
		}
		d.proof.doubted = diverged
		if wrong != nil {
			err = d.device.Wrong(wrong.how)
		}
		if err == nil && wrong != nil {
			d.job.Log.Warn("the GPU computed wrong numbers; training goes back to its last good state", "how", wrong.how, "step", d.Step)
		}
		if err == nil {
			err = d.anew(ctx)
		}
		if err != nil {
			return &DeviceError{Cause: err}
		}
	}
}

// anew goes on with a trainer whose memory on the device is another, filled again.
func (d *descent) anew(ctx context.Context) error {
	d.trainer.Close() // it says nothing new: what is wrong with the device, the next one tells
	t, err := d.proof.renew()
	if err != nil {
		return err
	}
	d.trainer, d.device, d.resident = t, nil, false
	if err := d.restore(d.proof.good); err != nil {
		return err
	}
	if err := d.onDevice(ctx); err != nil {
		return err
	}
	if d.device == nil {
		// The engine fell back: half a run on each engine would be a model that no other run gives.
		return errors.New("the GPU has no room any more to go back to the last good state")
	}
	return nil
}
