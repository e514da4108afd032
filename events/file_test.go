package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

func writeFile(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Values of one cell in a column a, beside a column b.
func TestCSVCells(t *testing.T) {
	for cell, want := range map[string]string{
		"5": "5", "-5.50": "-5.50", "1e5": "1e5", "45035996273704963": "45035996273704963", "1e400": "1e400", "-0": "-0", "0.10": "0.10",
		"+5": "5", ".5": "0.5", "5.": "5", "-.5": "-0.5", "+5.e3": "5e3", "  7.5 ": "7.5", `"7.5"`: "7.5", `" 7.5 "`: "7.5",
		"": "null", `""`: "null", "   ": "null", "007": `"007"`, "-007.5": `"-007.5"`, "00": `"00"`, "NaN": `"NaN"`, "0x1F": `"0x1F"`, "1_000": `"1_000"`, "1e": `"1e"`, ".": `"."`,
		"true": `"true"`, " x y ": `"x y"`, `" x"`: `" x"`, `"say ""hi"""`: `"say \"hi\""`, `"a` + "\n" + `b"`: `"a\nb"`, `5" pipe`: `"5\" pipe"`,
		`back\slash`: `"back\\slash"`, "tab\tx": `"tab\tx"`, "é": `"é"`, "\x01": `"\u0001"`, "\xff": "\"\uFFFD\"", "null": `"null"`,
	} {
		f, err := newFile("f.csv", io.NopCloser(strings.NewReader("a,b\n"+cell+",1\n")), FileOptions{Delimiter: ','})
		if err != nil {
			t.Fatal(err)
		}
		e, err := f.Next()
		if got := string(e.Value); err != nil || got != `{"a":`+want+`,"b":1}` {
			t.Errorf("%q: %s %v, want %s", cell, got, err, want)
		}
	}
	for cell, want := range map[string]string{"62,59": "62.59", "1.669,4": "1669.4", "1.234.567,8": "1234567.8", "1.669": "1669", "-0,5": "-0.5", ",5": "0.5", "5,": "5",
		"1,5e3": "1.5e3", "3.5": `"3.5"`, "12.34,5": `"12.34,5"`, "1.2.3": `"1.2.3"`, ".5": `".5"`, "1234.567": `"1234.567"`, "007,5": `"007,5"`, "1,2,3": `"1,2,3"`, "": "null", "x": `"x"`, "7": "7"} {
		f, err := newFile("f.csv", io.NopCloser(strings.NewReader("a;b\n"+cell+";1\n")), FileOptions{Delimiter: ';', DecimalComma: true})
		if err != nil {
			t.Fatal(err)
		}
		e, err := f.Next()
		if got := string(e.Value); err != nil || got != `{"a":`+want+`,"b":1}` {
			t.Errorf("decimal comma %q: %s %v, want %s", cell, got, err, want)
		}
	}
}

func TestFileOptions(t *testing.T) {
	path := writeFile(t, "cars.csv", []byte("time,car,temp,junk\n1600000001,c1,5,x\n1600000002,,6,y\n"))
	r := read(t, path, FileOptions{Key: "car", Time: "time", Drop: []string{"junk", "time"}}).counts(2)
	r.value(0, `{"car":"c1","temp":5}`)
	if e := r.entries[0]; string(e.Key) != "c1" || e.Time != 1600000001000 || e.Line != 2 {
		t.Errorf("%+v", e)
	}
	if e := r.entries[1]; e.Key != nil || e.Time != 1600000002000 {
		t.Errorf("%+v", e)
	}
	r.warned(`numbers such as 1600000001 are taken as time in "s"; --time-unit`)
	read(t, path, FileOptions{Raw: true, Key: "car"}).counts(2).value(0, "1600000001,c1,5,x")
	read(t, path, FileOptions{Key: "care", Time: "tme", Drop: []string{"jnk"}}).refused(
		`key column "care" is not in the header; did you mean car?`, `time column "tme"`, `did you mean time?`, `dropped column "jnk"`)
	read(t, path, FileOptions{Columns: []string{"a"}}).refused("1 column names given, the first line has 4 fields")
	read(t, path, FileOptions{Format: "xml", Delimiter: 'é'}).refused(`format "xml"`, "delimiter 'é'")
	read(t, path, FileOptions{TimeUnit: "s"}).refused("--time COL")
	read(t, path, FileOptions{Time: "time", TimeUnit: "h"}).refused(`unit "h"`)
	read(t, path, FileOptions{Encoding: "ebcdic"}).refused(`encoding "ebcdic"`)
	read(t, filepath.Join(t.TempDir(), "none.csv"), FileOptions{}).refused("none.csv")
	read(t, t.TempDir(), FileOptions{}).refused("is a folder")

	bare := writeFile(t, "bare.csv", []byte("2.1,2.2\n3.1,3.2\n"))
	read(t, bare, FileOptions{NoHeader: true}).counts(2).value(0, `{"column_1":2.1,"column_2":2.2}`)
	read(t, bare, FileOptions{NoHeader: true, Columns: []string{"a", "b"}}).counts(2).value(1, `{"a":3.1,"b":3.2}`)
	read(t, bare, FileOptions{}).counts(1).warned("all numbers", "--no-header")
	read(t, writeFile(t, "same.csv", []byte("5,5\n6,6\n")), FileOptions{}).refused(`"5" in columns 1 and 2`, "--no-header")
	read(t, writeFile(t, "rownum.csv", []byte(",x\n0,1\n")), FileOptions{}).counts(1).warned("column 1 has no name; it is called column_1")
	read(t, writeFile(t, "start.csv", []byte("\n \n\xEF\xBB\xBFa\n1\n")), FileOptions{}).counts(1)

	jsonl := writeFile(t, "cars.jsonl", []byte(`{"car":17,"t":{"at":"2020-09-13T12:26:41Z"},"x":1, "y":[1,{"z":"}"}],"\u0078y":3}`+"\n"+`{"car":null,"x":2,"t":{"at":"now"}}`+"\n"+`{"car":"a"}`+"\n"))
	r = read(t, jsonl, FileOptions{Key: "car", Time: "t.at", Drop: []string{"y", "xy"}}).counts(2, 2)
	r.value(0, `{"car":17,"t":{"at":"2020-09-13T12:26:41Z"},"x":1}`)
	r.rejectedWith(2, `column t.at: "now" is not a time`)
	if e := r.entries[0]; string(e.Key) != "17" || e.Time != 1600000001000 {
		t.Errorf("%+v", e)
	}
	if e := r.entries[1]; string(e.Key) != "a" || e.Time != NoTime || e.Line != 3 {
		t.Errorf("%+v", e)
	}
	read(t, writeFile(t, "array.json", []byte("[\n{\"a\":1}\n]\n")), FileOptions{}).counts(1, 1, 3).warned("jq -c")
	read(t, writeFile(t, "noext", []byte(" {\"a\":1}\n")), FileOptions{}).counts(1).value(0, `{"a":1}`)
}

func TestDelimiters(t *testing.T) {
	for text, want := range map[string]string{
		"a,b\n1,2\n": `{"a":1,"b":2}`, "a;b\n1;2\n": `{"a":1,"b":2}`, "a\tb\n1\t2\n": `{"a":1,"b":2}`, "a|b\n1|2\n": `{"a":1,"b":2}`,
		"a\n1\n": `{"a":1}`, "a;b,c\n1;2\n3;4\n": `{"a":1,"b,c":2}`, "\"a;x\",b\n1,2\n": `{"a;x":1,"b":2}`, "a\tb\n\t2\n": `{"a":null,"b":2}`,
	} {
		f, err := newFile("f.csv", io.NopCloser(strings.NewReader(text)), FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := f.Next(); err != nil || string(e.Value) != want {
			t.Errorf("%q: %s %v, want %s", text, e.Value, err, want)
		}
	}
}

// A fault in one row costs that row, never the ones after it.
func TestFaultsCostOneRow(t *testing.T) {
	r := read(t, writeFile(t, "q.csv", []byte("a,b\n1,\"open\n2,x\n3,\"y\" z\n4,w\n")), FileOptions{})
	r.counts(2, 2, 4).rejectedWith(2, "column b: a quoted field that does not end at a delimiter")
	r.value(0, `{"a":2,"b":"x"}`)
	r.value(1, `{"a":4,"b":"w"}`)

	long := strings.Repeat("x", 2*maxRow)
	r = read(t, writeFile(t, "long.csv", []byte("a,b\n1,2\n"+long+",3\n4,5\n")), FileOptions{}).counts(2, 3)
	r.rejectedWith(3, "more than 8 MiB")
	r.value(1, `{"a":4,"b":5}`)
	r = read(t, writeFile(t, "long.jsonl", []byte("{\"a\":1}\n{\"a\":\""+long+"\"}\n{\"a\":2}")), FileOptions{}).counts(2, 2)
	r.value(1, `{"a":2}`)
	read(t, writeFile(t, "open.csv", []byte("a,b\n1,2\n3,\""+long+"\n5,6\n")), FileOptions{}).counts(2, 3)
	commas := strings.Repeat(",", maxCells+5)
	read(t, writeFile(t, "commas.csv", []byte("a,b\n"+commas+"\n1,2\n")), FileOptions{}).counts(1, 2)
	read(t, writeFile(t, "wide.csv", []byte(commas+"\n")), FileOptions{}).refused("65536 columns or more")
	read(t, writeFile(t, "mac.csv", []byte("a,b\r1,2\r3,4\r")), FileOptions{}).refused("lone carriage return")
	read(t, writeFile(t, "zip.csv", []byte("PK\x03\x04rest of it")), FileOptions{}).refused("zip archive")
	read(t, writeFile(t, "bin.csv", []byte("ab\x00c,d\n1,2\n")), FileOptions{}).refused("NUL byte in the header")
	read(t, writeFile(t, "bom.csv", []byte("\xEF\xBB\xBF")), FileOptions{}).refused("empty, no header")
	read(t, writeFile(t, "blank.csv", []byte("\n \n\r\n")), FileOptions{}).refused("empty, no header")
	read(t, writeFile(t, "blank.jsonl", []byte("\n \n")), FileOptions{}).counts(0).warned("no rows")
}

func TestEncodings(t *testing.T) {
	read(t, writeFile(t, "l1.csv", []byte("gr\xf6\xdfe;x\n1;\xe9\n")), FileOptions{Encoding: "Latin1"}).counts(1).value(0, `{"größe":1,"x":"é"}`)
	read(t, writeFile(t, "w.csv", []byte("pr\x80is;x\n1;\x93a\x94\n")), FileOptions{Encoding: "windows-1252"}).counts(1).value(0, `{"pr€is":1,"x":"“a”"}`)
	be := []byte{0xfe, 0xff}
	for _, c := range []byte("a,b\n1,2\n") {
		be = append(be, 0, c)
	}
	read(t, writeFile(t, "be.csv", be), FileOptions{}).counts(1).value(0, `{"a":1,"b":2}`)
	read(t, writeFile(t, "be2.csv", be[2:]), FileOptions{}).refused("UTF-16 without a byte-order mark", "iconv")
	read(t, writeFile(t, "be3.csv", be[2:]), FileOptions{Encoding: "utf-16be"}).counts(1).value(0, `{"a":1,"b":2}`)
	pair := append(append([]byte{}, be...), 0xd8, 0x3d, 0xde, 0x00, 0, ',', 0xd8, 0x3d, 0, 'x', 0, '\n')
	read(t, writeFile(t, "pair.csv", pair), FileOptions{}).counts(2).value(1, "{\"a\":\"😀\",\"b\":\"\uFFFDx\"}")
	if r := read(t, writeFile(t, "odd.csv", append(pair, 0)), FileOptions{}); r.err == nil || len(r.entries) != 2 || !strings.Contains(r.err.Error(), "odd number of bytes") {
		t.Errorf("%d rows, %v", len(r.entries), r.err)
	}
}

func TestCompressed(t *testing.T) {
	plain := []byte("temp,load,vibration\n" + plainRows(5000, ",", "\n"))
	var z bytes.Buffer
	enc, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	enc.Write(plain)
	enc.Close()
	read(t, writeFile(t, "x.csv.zst", z.Bytes()), FileOptions{}).counts(5000)
	read(t, writeFile(t, "x.csv", z.Bytes()), FileOptions{}).counts(5000)
	read(t, writeFile(t, "t.zst", append(z.Bytes()[:z.Len():z.Len()], "TRAILING"...)), FileOptions{}).counts(5000).warned("last zstd frame")
	if r := read(t, writeFile(t, "cut.zst", z.Bytes()[:z.Len()-10]), FileOptions{}); r.err == nil && r.openErr == nil {
		t.Error("a zstd file that is cut short was read to its end")
	}
	gz := gzipped(string(plain))
	read(t, writeFile(t, "x.csv.gz", gz), FileOptions{}).counts(5000)
	read(t, writeFile(t, "x.gz", gz), FileOptions{}).counts(5000)
	// Cut short, or with a wrong checksum: the rows before are handed out, and then it says so.
	for what, b := range map[string][]byte{"cut short at byte": gz[:len(gz)/2], "gzip, near byte": append(gz[:len(gz)-8:len(gz)-8], 1, 2, 3, 4, 0, 0, 0, 0)} {
		r := read(t, writeFile(t, "bad.csv.gz", b), FileOptions{})
		if r.err == nil || !strings.Contains(r.err.Error(), what) || len(r.entries) < 100 {
			t.Errorf("%d rows, then %v", len(r.entries), r.err)
		}
	}
}

// Reading in pieces of any size gives the same rows; an error of the disk is no end of the file.
func TestReadersThatStutter(t *testing.T) {
	text := messyCopies()["05-quoted-newlines.csv"]
	for _, r := range []io.Reader{iotest.OneByteReader(bytes.NewReader(text)), iotest.HalfReader(bytes.NewReader(text)), iotest.DataErrReader(bytes.NewReader(text))} {
		f, err := newFile("f.csv", io.NopCloser(r), FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			if e, err := f.Next(); err != nil {
				t.Fatalf("row %d: %v", i, e)
			}
		}
		if _, err := f.Next(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	boom := errors.New("boom")
	for name, lines := range map[string]string{"f.jsonl": "{\"a\":1}\n{\"a\":2}\n{\"a\"", "f.csv": "a,b\n1,2\n3,4\n5"} {
		f, err := newFile(name, io.NopCloser(io.MultiReader(strings.NewReader(lines), iotest.ErrReader(boom))), FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := f.Next(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if _, err := f.Next(); !errors.Is(err, boom) || !strings.Contains(err.Error(), name+":") {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.Close()
	}
	if _, err := newFile("f.csv", io.NopCloser(iotest.ErrReader(boom)), FileOptions{}); !errors.Is(err, boom) {
		t.Error(err)
	}
}

// Entries keep their bytes while reading goes on.
func TestEntriesAreTheirOwn(t *testing.T) {
	var text strings.Builder
	text.WriteString("k,v\n")
	for i := range 20000 {
		fmt.Fprintf(&text, "key%d,%d\n", i, i)
	}
	r := read(t, writeFile(t, "x.csv", []byte(text.String())), FileOptions{Key: "k"}).counts(20000)
	for i, e := range r.entries {
		if string(e.Key) != fmt.Sprintf("key%d", i) || string(e.Value) != fmt.Sprintf(`{"k":"key%d","v":%d}`, i, i) {
			t.Fatalf("row %d: %s %s", i, e.Key, e.Value)
		}
	}
	if cap(r.entries[0].Value) != len(r.entries[0].Value) {
		t.Error("appending to a value would write into the next")
	}
}

func BenchmarkCSV(b *testing.B) {
	var text bytes.Buffer
	text.WriteString("time,car," + strings.Join(carFields, ",") + "\n")
	for i := range 2000 {
		fmt.Fprintf(&text, "%d,car%d,39.395103,34.53991,123.317406,0.82654595,246.12367,0.6586535,24.934872,2493.487,0.034893095,32,31,34,34,0.5295712,0.9600553,0.88389874,0.043890715,2000\n", 1567606196+i, i%100)
	}
	b.SetBytes(int64(text.Len() / 2000))
	b.ReportAllocs()
	b.ResetTimer()
	var f *File
	for i := 0; i < b.N; i++ {
		if i%2000 == 0 {
			var err error
			if f, err = newFile("f.csv", io.NopCloser(bytes.NewReader(text.Bytes())), FileOptions{Key: "car", Time: "time", TimeUnit: "s"}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.Next(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// A raw line goes out as it is, whatever it is; only a key or a time is a reason to look into it.
func TestRawLinesAreNotChecked(t *testing.T) {
	lines := "{\"a\":1}\r\n\nnot JSON\n  {\"a\":NaN} \n[1,2]\n"
	path := writeFile(t, "f.jsonl", []byte(lines))
	r := read(t, path, FileOptions{Raw: true}).counts(4)
	for i, want := range []string{`{"a":1}`, "not JSON", `  {"a":NaN} `, "[1,2]"} {
		r.value(i, want)
	}
	read(t, path, FileOptions{Raw: true, Key: "a"}).counts(1, 3, 4, 5)

	path = writeFile(t, "f.csv", []byte("a,b\n1,2\n1\n1,\"2\n1,2,3\nx\x00,y\n"))
	r = read(t, path, FileOptions{Raw: true}).counts(5)
	for i, want := range []string{"1,2", "1", `1,"2`, "1,2,3", "x\x00,y"} {
		r.value(i, want)
	}
	if e := r.entries[2]; e.Line != 4 {
		t.Errorf("line %d", e.Line)
	}
}
