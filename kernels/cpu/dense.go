package cpu

// dense is a matrix packed for y = W·x + b: outputs in tiles of eight, and a last tile of four where at most
// four are left, each tile holding its weights input by input. One load of an input then serves eight
// outputs, whose sums stay in registers: eight independent additions hide the latency of one.
// Rows of a tile past out are zero.
type dense struct {
	in, out int
	b       []float32    // padded to stride(out)
	w8      [][8]float32 // tile t, input k at t·in + k
	w4      [][4]float32 // input k, where out%8 is 1 to 4
}

// stride is the room that a value of the given width takes in a block: tiles write whole.
func stride(width int) int { return (width + 7) &^ 7 }

func newDense(in, out int) *dense {
	d := &dense{in: in, out: out, b: make([]float32, stride(out))}
	tiles := out / 8
	if rest := out % 8; rest > 4 {
		tiles++
	} else if rest > 0 {
		d.w4 = make([][4]float32, in)
	}
	d.w8 = make([][8]float32, tiles*in)
	return d
}

// pack takes row-major weights, out rows of in, and biases.
func (d *dense) pack(w, b []float32) {
	copy(d.b, b)
	for o := range d.out {
		row := w[o*d.in:][:d.in]
		t, lane := o/8, o%8
		if (t+1)*d.in <= len(d.w8) {
			for k, v := range row {
				d.w8[t*d.in+k][lane] = v
			}
		} else {
			for k, v := range row {
				d.w4[k][lane] = v
			}
		}
	}
}

// packTransposed takes the weights of a matrix that is d.in by d.out, and no biases: y = Wᵀ·x.
func (d *dense) packTransposed(w []float32) {
	for k := range d.in {
		row := w[k*d.out:][:d.out]
		for o, v := range row {
			if t := o / 8; (t+1)*d.in <= len(d.w8) {
				d.w8[t*d.in+k][o%8] = v
			} else {
				d.w4[k][o%8] = v
			}
		}
	}
}

// multiply evaluates n rows. Row r of x starts at r·xStride, of y at r·stride(out). Each row is summed in
// the order of its inputs, whatever n is.
func (d *dense) multiply(y, x []float32, xStride, n int) {
	in, yStride := d.in, stride(d.out)
	tiles := len(d.w8) / in
	for t := range tiles {
		w := d.w8[t*in:][:in]
		b := (*[8]float32)(d.b[t*8:])
		for r := range n {
			row := x[r*xStride:][:in]
			y0, y1, y2, y3, y4, y5, y6, y7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
			for k := range row {
				v, wk := row[k], &w[k]
				y0 += float32(wk[0] * v)
				y1 += float32(wk[1] * v)
				y2 += float32(wk[2] * v)
				y3 += float32(wk[3] * v)
				y4 += float32(wk[4] * v)
				y5 += float32(wk[5] * v)
				y6 += float32(wk[6] * v)
				y7 += float32(wk[7] * v)
			}
			*(*[8]float32)(y[r*yStride+t*8:]) = [8]float32{y0, y1, y2, y3, y4, y5, y6, y7}
		}
	}
	if len(d.w4) == 0 {
		return
	}
	w := d.w4[:in]
	b := (*[4]float32)(d.b[tiles*8:])
	for r := range n {
		row := x[r*xStride:][:in]
		y0, y1, y2, y3 := b[0], b[1], b[2], b[3]
		for k := range row {
			v, wk := row[k], &w[k]
			y0 += float32(wk[0] * v)
			y1 += float32(wk[1] * v)
			y2 += float32(wk[2] * v)
			y3 += float32(wk[3] * v)
		}
		*(*[4]float32)(y[r*yStride+tiles*8:]) = [4]float32{y0, y1, y2, y3}
	}
}
