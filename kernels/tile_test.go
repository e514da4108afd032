package kernels_test

import (
	"math/rand/v2"
	"testing"

	"github.com/lapwing-stream/lapwing/kernels"
)

// Values that are in use never share a column, and all that was dropped can be taken again as one piece.
func TestTile(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	var tile kernels.Tile
	type value struct{ at, width int }
	var live []value
	for range 2000 {
		if len(live) > 0 && draw.IntN(2) == 0 {
			i := draw.IntN(len(live))
			tile.Drop(live[i].at, live[i].width)
			live = append(live[:i], live[i+1:]...)
			continue
		}
		v := value{width: 1 + draw.IntN(8)}
		v.at = tile.Place(v.width)
		for _, o := range live {
			if v.at < o.at+o.width && o.at < v.at+v.width {
				t.Fatalf("%+v lies over %+v", v, o)
			}
		}
		if v.at+v.width > tile.Height {
			t.Fatalf("%+v ends beyond %d", v, tile.Height)
		}
		live = append(live, v)
	}
	for _, v := range live {
		tile.Drop(v.at, v.width)
	}
	if height := tile.Height; tile.Place(height) != 0 || tile.Height != height {
		t.Errorf("what was dropped is not one piece: %+v", tile)
	}
}
