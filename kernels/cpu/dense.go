package cpu

// dense is a matrix packed for y = W·x + b: outputs in tiles of four, each tile holding its weights input
// by input. One load of an input serves four outputs, whose sums stay in registers. Tiles of eight would
// hide the latency of an addition better, but Go's compiler then spills sums inside the loop (measured:
// 0.49 against 0.33 ns a multiplication). Rows of the last tile past out are zero.
type dense struct {
	in, out int
	b       []float32    // padded to stride(out)
	w       [][4]float32 // tile t, input k at t·in + k
}

// stride is the room that a value of the given width takes in a block: tiles write whole.
func stride(width int) int { return (width + 3) &^ 3 }

func newDense(in, out int) *dense {
	return &dense{in: in, out: out, b: make([]float32, stride(out)), w: make([][4]float32, stride(out)/4*in)}
}

// pack takes row-major weights, out rows of in, and biases.
func (d *dense) pack(w, b []float32) {
	copy(d.b, b)
	for o := range d.out {
		tile := d.w[o/4*d.in:][:d.in]
		for k, v := range w[o*d.in:][:d.in] {
			tile[k][o&3] = v
		}
	}
}

// packTransposed takes the weights of a matrix that is d.in by d.out, and no biases: y = Wᵀ·x.
func (d *dense) packTransposed(w []float32) {
	for k := range d.in {
		for o, v := range w[k*d.out:][:d.out] {
			d.w[o/4*d.in+k][o&3] = v
		}
	}
}

// multiply evaluates n rows. Row r of x starts at r·xStride, of y at r·stride(out). Each row is summed in
// the order of its inputs, whatever n is.
func (d *dense) multiply(y, x []float32, xStride, n int) {
	in, yStride := d.in, stride(d.out)
	for t := range len(d.w) / in {
		w := d.w[t*in:][:in]
		b := (*[4]float32)(d.b[t*4:])
		for r := range n {
			row := x[r*xStride:][:len(w)]
			y0, y1, y2, y3 := b[0], b[1], b[2], b[3]
			for k := range w {
				v, wk := row[k], &w[k]
				y0 += float32(wk[0] * v)
				y1 += float32(wk[1] * v)
				y2 += float32(wk[2] * v)
				y3 += float32(wk[3] * v)
			}
			q := (*[4]float32)(y[r*yStride+t*4:])
			q[0], q[1], q[2], q[3] = y0, y1, y2, y3
		}
	}
}
