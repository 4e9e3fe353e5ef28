package main

import (
	"fmt"
	"math"
	"strings"
)

// A plot is a chart of curves, one for each peer, as SVG.
type plot struct {
	title, x, y string
	log         bool // both axes
	curves      []curve
}

type curve struct {
	name   string
	points [][2]float64
}

var colours = map[string]string{
	thinPeer: "#c0392b", thickPeer: "#e67e22", referencePeer: "#8e6bbf", braidPeer: "#2471a3", braidDaemonPeer: "#117a65",
	standalonePeer: "#5dade2", floorPeer: "#888888", floorJournalPeer: "#444444",
}

const (
	width, height       = 720, 400
	left, right         = 70.0, 540.0
	top, bottom         = 40.0, 350.0
	legendX, legendStep = 552.0, 20.0
)

// svg draws the plot. Without a curve it is empty.
func (p *plot) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%.0f" y="22" font-size="14">%s</text>`+"\n", width, height, left, p.title)
	xs, ys := p.axis(0), p.axis(1)
	for _, v := range xs.ticks {
		x := xs.at(v, left, right)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", x, top, x, bottom, x, bottom+18, number(v))
	}
	for _, v := range ys.ticks {
		y := ys.at(v, bottom, top)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/><text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", left, y, right, y, left-6, y+4, number(v))
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", (left+right)/2, height-8, p.x)
	fmt.Fprintf(&b, `<text transform="translate(16,%.1f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+bottom)/2, p.y)
	for i, c := range p.curves {
		name, _, dashed := strings.Cut(c.name, ",")
		colour := colours[name]
		if colour == "" {
			colour = "black"
		}
		style := ""
		if dashed {
			style = ` stroke-dasharray="5,4"`
		}
		var line []string
		for _, q := range c.points {
			x, y := xs.at(q[0], left, right), ys.at(q[1], bottom, top)
			line = append(line, fmt.Sprintf("%.1f,%.1f", x, y))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x, y, colour)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(line, " "), colour, style)
		y := top + 8 + legendStep*float64(i)
		fmt.Fprintf(&b, `<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f" stroke="%s" stroke-width="2"%s/><text x="%.0f" y="%.1f">%s</text>`+"\n", legendX, y, legendX+18, y, colour, style, legendX+24, y+4, c.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

type axis struct {
	log       bool
	low, high float64
	ticks     []float64
}

func (p *plot) axis(i int) axis {
	a := axis{log: p.log, low: math.Inf(1), high: math.Inf(-1)}
	for _, c := range p.curves {
		for _, q := range c.points {
			a.low, a.high = min(a.low, q[i]), max(a.high, q[i])
		}
	}
	if a.log {
		a.low, a.high = math.Pow(10, math.Floor(math.Log10(max(a.low, 0.1)))), math.Pow(10, math.Ceil(math.Log10(max(a.high, 1))))
		if a.high <= a.low {
			a.high = 10 * a.low
		}
		for v := a.low; v <= a.high*1.001; v *= 10 {
			a.ticks = append(a.ticks, v)
		}
		return a
	}
	a.low = 0
	step := math.Pow(10, math.Floor(math.Log10(max(a.high, 1e-9)/2)))
	for a.high/step > 8 {
		step *= 2
	}
	a.high = step * math.Ceil(a.high/step)
	for v := 0.0; v <= a.high*1.001; v += step {
		a.ticks = append(a.ticks, v)
	}
	return a
}

// at returns where a value is between from and to.
func (a axis) at(v, from, to float64) float64 {
	part := (v - a.low) / (a.high - a.low)
	if a.log {
		part = math.Log(max(v, a.low)/a.low) / math.Log(a.high/a.low)
	}
	return from + part*(to-from)
}

func number(v float64) string {
	if v >= 1000 {
		s := fmt.Sprintf("%.0f", v)
		return s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return fmt.Sprintf("%.4g", v)
}
