package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written 1GiB, 512MiB, 1.5GB or 1048576.
type Size int64

// Share is a part of a whole, 0 to 1, written 5% or 0.05.
type Share float64

var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

func parseSize(text string) (Size, error) {
	number, unit := strings.TrimSpace(text), 1.0
	for _, u := range sizeUnits {
		if before, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(before), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && unit == 1 {
		return Size(n), nil
	}
	f, err := parseNumber(number)
	if err != nil || f*unit >= math.MaxInt64 || f < 0 {
		return 0, errors.New("not a size")
	}
	return Size(math.Round(f * unit)), nil
}

func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%int64(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/int64(u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func parseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := parseNumber(strings.TrimSpace(number))
	if err != nil {
		return 0, err
	}
	if percent {
		f /= 100
	}
	return Share(f), nil
}

func (s Share) String() string {
	return strconv.FormatFloat(math.Round(float64(s)*1e12)/1e10, 'g', -1, 64) + "%"
}

// parseNumber is a finite decimal number: no hexadecimal, no digit separators, no Inf.
func parseNumber(text string) (float64, error) {
	if strings.ContainsAny(text, "xXpP_iInN") {
		return 0, errors.New("not a number")
	}
	return strconv.ParseFloat(text, 64)
}

// parseDuration is Go's notation with days: 7d.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		f, err := parseNumber(days)
		if err != nil || math.Abs(f) > 36500 {
			return 0, errors.New("not a duration")
		}
		return time.Duration(f * float64(24*time.Hour)), nil
	}
	return time.ParseDuration(text)
}

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseValue sets v, of one of the types that settings have, from text.
func parseValue(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case Size:
		n, err := parseSize(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
		return nil
	case Share:
		f, err := parseShare(text)
		if err != nil {
			return err
		}
		v.SetFloat(float64(f))
		return nil
	case time.Duration:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
		return nil
	case []string:
		v.Set(reflect.ValueOf(splitList(text)))
		return nil
	case []int:
		var list []int
		for _, part := range splitList(text) {
			n, err := strconv.Atoi(part)
			if err != nil {
				return err
			}
			list = append(list, n)
		}
		v.Set(reflect.ValueOf(list))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
	case reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return err
		}
		v.SetUint(n)
	case reflect.Float64:
		f, err := parseNumber(text)
		if err != nil {
			return err
		}
		v.SetFloat(f)
	case reflect.Bool:
		switch text { // what YAML 1.2 calls a boolean
		case "true", "True", "TRUE":
			v.SetBool(true)
		case "false", "False", "FALSE":
			v.SetBool(false)
		default:
			return errors.New("not a boolean")
		}
	default:
		return fmt.Errorf("no way to write a %s", v.Type())
	}
	return nil
}

// formatValue writes v as parseValue reads it.
func formatValue(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case []string:
		return strings.Join(x, ",")
	case []int:
		var parts []string
		for _, n := range x {
			parts = append(parts, strconv.Itoa(n))
		}
		return strings.Join(parts, ",")
	case float64:
		return strconv.FormatFloat(x, 'g', -1, 64)
	case fmt.Stringer:
		return x.String()
	}
	return fmt.Sprint(v.Interface())
}

// splitList reads names parted by commas; spaces around them and empty ones do not count.
func splitList(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// bounds checks min and max; for lists, each entry.
func (s *setting) bounds(v reflect.Value) error {
	if s.min == "" && s.max == "" {
		return nil
	}
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			if err := s.bounds(v.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	var x float64
	switch {
	case v.CanInt():
		x = float64(v.Int())
	case v.CanUint():
		x = float64(v.Uint())
	case v.CanFloat():
		x = v.Float()
	default:
		return nil
	}
	if lo, err := strconv.ParseFloat(s.min, 64); err == nil && !(x >= lo) {
		return fmt.Errorf("%s is too small; the least is %s", formatValue(v), formatBound(v.Type(), s.min))
	}
	if hi, err := strconv.ParseFloat(s.max, 64); err == nil && !(x <= hi) {
		return fmt.Errorf("%s is too large; the most is %s", formatValue(v), formatBound(v.Type(), s.max))
	}
	return nil
}

// formatBound writes a bound in the notation of its setting: the tags hold plain numbers, nanoseconds for durations.
func formatBound(typ reflect.Type, tag string) string {
	bound := reflect.New(typ).Elem()
	f, _ := strconv.ParseFloat(tag, 64)
	switch {
	case bound.CanInt():
		bound.SetInt(int64(f))
	case bound.CanUint():
		bound.SetUint(uint64(f))
	default:
		bound.SetFloat(f)
	}
	return formatValue(bound)
}
