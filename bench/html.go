package bench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

type pageBlock struct {
	Suite, Title, ID string
	Columns          []string
	Lines            []pageLine
	Plot             template.HTML
}

type pageLine struct {
	Subject, Role, Error string
	Cells                []pageCell
}

type pageCell struct {
	Ratio, Value, Spread, Note string
	Loses                      bool
}

type pageTarget struct {
	Name, Found, Asked string
	OK                 bool
}

// HTML writes a page that needs nothing else: no script, no font, no network; dark where the reader's system is.
func (r *Report) HTML(w io.Writer) error {
	data := struct {
		*Report
		Peers, Legend string
		Blocks        []pageBlock
		Goals         []pageTarget
		Reached       int
	}{Report: r, Peers: r.versions(), Legend: legend}
	for i, b := range r.blocks() {
		data.Blocks = append(data.Blocks, b.page(i))
	}
	for _, t := range r.Targets {
		data.Goals = append(data.Goals, pageTarget{t.Name, t.found(), t.asked(), t.OK})
		if t.OK {
			data.Reached++
		}
	}
	return page.Execute(w, data)
}

func (b *block) page(n int) pageBlock {
	p := pageBlock{Suite: b.suite, Title: b.title, ID: fmt.Sprintf("b%d", n), Columns: b.columns}
	lead := b.lead()
	for i := range b.lines {
		l := &b.lines[i]
		line := pageLine{Subject: l.subject, Role: l.role, Error: l.err}
		for c, row := range l.rows {
			var cell pageCell
			switch {
			case row == nil:
			case row.Error != "":
				cell.Note = row.Error
			default:
				cell.Value, cell.Note = figure(row.Value), row.Noisy
				if row.Spread[0] != row.Spread[1] {
					cell.Spread = figure(row.Spread[0]) + " to " + figure(row.Spread[1])
				}
				if lead != nil && l.role != Ours && lead.rows[c] != nil {
					if ratio, ok := lead.rows[c].Ratio[l.subject]; ok {
						cell.Ratio, cell.Loses = times(ratio), loses(ratio, b.lower[c]) && l.role == Peer
					}
				}
			}
			line.Cells = append(line.Cells, cell)
		}
		p.Lines = append(p.Lines, line)
	}
	p.Plot = template.HTML(b.plot(p.ID)) // our own numbers, and names that are escaped below
	return p
}

// plot is a line chart over what the cases vary, else bars of the first metric.
func (b *block) plot(id string) string {
	if len(b.xs) > 1 {
		return b.lineChart(id)
	}
	return b.bars(id)
}

const (
	plotWidth  = 640
	plotHeight = 260
	labelWidth = 190
)

func (b *block) describe(out *strings.Builder, id string, height int) {
	fmt.Fprintf(out, `<svg viewBox="0 0 %d %d" role="img" aria-labelledby="%s-t"><title id="%s-t">%s: %s. The table has the figures.</title>`,
		plotWidth, height, id, id, template.HTMLEscapeString(b.suite), template.HTMLEscapeString(b.title))
}

func (b *block) bars(id string) string {
	var most float64
	lines := 0
	for _, l := range b.lines {
		if len(l.rows) > 0 && l.rows[0] != nil && l.rows[0].Error == "" {
			most = max(most, l.rows[0].Spread[1], l.rows[0].Value)
			lines++
		}
	}
	if lines < 2 || most == 0 {
		return ""
	}
	var out strings.Builder
	b.describe(&out, id, 26*lines+22)
	fmt.Fprintf(&out, `<text x="0" y="12" class="axis">%s</text>`, template.HTMLEscapeString(b.columns[0]))
	y := 20
	for _, l := range b.lines {
		if len(l.rows) == 0 || l.rows[0] == nil || l.rows[0].Error != "" {
			continue
		}
		row := l.rows[0]
		at := func(v float64) float64 { return labelWidth + v/most*(plotWidth-labelWidth-80) }
		fmt.Fprintf(&out, `<text x="%d" y="%d" text-anchor="end">%s</text><rect class="%s" x="%d" y="%d" width="%.1f" height="18" rx="2"/>`,
			labelWidth-8, y+14, template.HTMLEscapeString(l.subject), l.role, labelWidth, y, max(1, at(row.Value)-labelWidth))
		if row.Spread[0] < row.Spread[1] {
			fmt.Fprintf(&out, `<path class="whisker" d="M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8"/>`, at(row.Spread[0]), y+9, at(row.Spread[1]), at(row.Spread[0]), y+5, at(row.Spread[1]), y+5)
		}
		fmt.Fprintf(&out, `<text x="%.1f" y="%d">%s</text>`, max(at(row.Value), at(row.Spread[1]))+6, y+14, figure(row.Value))
		y += 26
	}
	out.WriteString("</svg>")
	return out.String()
}

// lineChart has logarithmic axes: batches grow by powers, and so do figures.
func (b *block) lineChart(id string) string {
	least, most := math.Inf(1), 0.
	for _, l := range b.lines {
		for _, r := range l.rows {
			if r != nil && r.Error == "" && r.Value > 0 {
				least, most = min(least, r.Value), max(most, r.Value)
			}
		}
	}
	if most == 0 || slices.Min(b.xs) <= 0 {
		return ""
	}
	const left, right, top, bottom = 64, 170, 12, 34
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	high = max(high, low+1)
	x0, x1 := math.Log(slices.Min(b.xs)), math.Log(slices.Max(b.xs))
	px := func(x float64) float64 { return left + (math.Log(x)-x0)/(x1-x0)*(plotWidth-left-right) }
	py := func(v float64) float64 {
		return plotHeight - bottom - (math.Log10(v)-low)/(high-low)*(plotHeight-top-bottom)
	}
	var out strings.Builder
	b.describe(&out, id, plotHeight)
	for e := low; e <= high; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&out, `<path class="grid" d="M%d %.1fH%d"/><text class="axis" x="%d" y="%.1f" text-anchor="end">%s</text>`, left, py(v), plotWidth-right, left-6, py(v)+4, figure(v))
	}
	for _, x := range b.xs {
		fmt.Fprintf(&out, `<text class="axis" x="%.1f" y="%d" text-anchor="middle">%.0f</text>`, px(x), plotHeight-bottom+18, x)
	}
	type end struct {
		y          float64
		name, kind string
	}
	var ends []end
	kinds := map[string]int{}
	for _, l := range b.lines {
		var d strings.Builder
		var last float64
		kind := fmt.Sprintf("%s n%d", l.role, kinds[l.role])
		for c, r := range l.rows {
			if r == nil || r.Error != "" || r.Value <= 0 {
				continue
			}
			verb := "L"
			if d.Len() == 0 {
				verb = "M"
			}
			fmt.Fprintf(&d, "%s%.1f %.1f", verb, px(b.xs[c]), py(r.Value))
			last = py(r.Value)
			fmt.Fprintf(&out, `<circle class="%s" cx="%.1f" cy="%.1f" r="3"/>`, kind, px(b.xs[c]), py(r.Value))
		}
		if d.Len() == 0 {
			continue
		}
		kinds[l.role]++
		fmt.Fprintf(&out, `<path class="line %s" d="%s"/>`, kind, d.String())
		ends = append(ends, end{last, l.subject, kind})
	}
	// Names stand at their lines' ends, apart enough to be read.
	slices.SortFunc(ends, func(a, b end) int {
		switch {
		case a.y < b.y:
			return -1
		case a.y > b.y:
			return 1
		}
		return 0
	})
	for i, e := range ends {
		if i > 0 {
			ends[i].y = max(e.y, ends[i-1].y+15)
		}
	}
	if n := len(ends) - 1; n >= 0 {
		if over := ends[n].y - (plotHeight - 8); over > 0 {
			for i := range ends {
				ends[i].y -= over
			}
		}
	}
	for _, e := range ends {
		fmt.Fprintf(&out, `<text class="name %s" x="%d" y="%.1f">%s</text>`, e.kind, plotWidth-right+10, e.y+4, template.HTMLEscapeString(e.name))
	}
	out.WriteString("</svg>")
	return out.String()
}
