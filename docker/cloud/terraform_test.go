package cloud

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	"go.yaml.in/yaml/v3"
)

var modules = []string{"aws", "gcp"}

// schema is what a block takes, as the provider's own signatures say (testdata/providers.py).
type schema struct {
	Required, Optional []string
	Blocks             map[string]schema
}

// module is a Terraform module as far as it can be read without its providers.
type module struct {
	declared map[string]bool // var.train, local.name, aws_instance.train, data.aws_ssm_parameter.image
	blocks   []*hclsyntax.Block
}

func readModule(t *testing.T, name string) module {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("terraform", name, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	m := module{declared: map[string]bool{}}
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, faults := hclsyntax.ParseConfig(source, path, hcl.InitialPos)
		if faults.HasErrors() {
			t.Fatal(faults)
		}
		m.blocks = append(m.blocks, file.Body.(*hclsyntax.Body).Blocks...)
	}
	for _, b := range m.blocks {
		switch b.Type {
		case "variable":
			m.declared["var."+b.Labels[0]] = true
		case "locals":
			for a := range b.Body.Attributes {
				m.declared["local."+a] = true
			}
		case "resource":
			m.declared[strings.Join(b.Labels, ".")] = true
		case "data":
			m.declared["data."+strings.Join(b.Labels, ".")] = true
		case "output", "terraform":
		default:
			t.Errorf("%s: a block %s", b.TypeRange, b.Type)
		}
	}
	return m
}

// Every argument and block is one that the provider takes, none that it demands is missing, and whatever is referred to
// is declared. Values, and rules between arguments, only the provider itself could check.
func TestTerraformModules(t *testing.T) {
	text, err := os.ReadFile("testdata/providers.json")
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	for _, name := range modules {
		t.Run(name, func(t *testing.T) {
			m := readModule(t, name)
			checked := 0
			for _, b := range m.blocks {
				references(t, m, b.Body)
				if b.Type != "resource" && b.Type != "data" {
					continue
				}
				var s schema
				key := b.Type + " " + b.Labels[0]
				if raw[key] == nil {
					t.Errorf("%s: nothing is known of %s: run testdata/providers.py again", b.TypeRange, key)
					continue
				}
				if err := json.Unmarshal(raw[key], &s); err != nil {
					t.Fatal(err)
				}
				checked++
				fits(t, key, b.Body, s, true)
			}
			if checked < 4 {
				t.Errorf("%d resources were checked", checked)
			}
		})
	}
}

func fits(t *testing.T, where string, body *hclsyntax.Body, s schema, top bool) {
	t.Helper()
	given := map[string]bool{}
	for a, at := range body.Attributes {
		given[a] = true
		if top && slices.Contains([]string{"count", "for_each", "depends_on", "provider"}, a) {
			continue
		}
		if !slices.Contains(s.Required, a) && !slices.Contains(s.Optional, a) {
			t.Errorf("%s: %s takes no argument %s", at.NameRange, where, a)
		}
	}
	for _, b := range body.Blocks {
		kind, inner := b.Type, b.Body
		if top && kind == "lifecycle" {
			continue
		}
		if kind == "dynamic" {
			kind = b.Labels[0]
			inner = b.Body.Blocks[0].Body
		}
		given[kind] = true
		nested, ok := s.Blocks[kind]
		if !ok {
			t.Errorf("%s: %s takes no block %s", b.TypeRange, where, kind)
			continue
		}
		fits(t, where+"."+kind, inner, nested, false)
	}
	for _, a := range s.Required {
		if !given[a] {
			t.Errorf("%s: %s needs %s", body.SrcRange, where, a)
		}
	}
}

func references(t *testing.T, m module, body *hclsyntax.Body) {
	t.Helper()
	check := func(v hcl.Traversal) {
		parts := []string{v.RootName()}
		for _, step := range v[1:] {
			if a, ok := step.(hcl.TraverseAttr); ok {
				parts = append(parts, a.Name)
			}
		}
		n := 2
		switch parts[0] {
		case "path", "each", "guest_accelerator":
			return
		case "data":
			n = 3
		}
		if name := strings.Join(parts[:min(n, len(parts))], "."); !m.declared[name] {
			t.Errorf("%s: %s is declared nowhere", v.SourceRange(), name)
		}
	}
	for _, a := range body.Attributes {
		if a.Name == "ignore_changes" || a.Name == "type" && len(a.Expr.Variables()) == 1 { // names of arguments; a variable's type
			continue
		}
		for _, v := range a.Expr.Variables() {
			check(v)
		}
	}
	for _, b := range body.Blocks {
		if b.Type == "required_providers" {
			continue
		}
		references(t, m, b.Body)
	}
}

// functions are those of Terraform that the locals and the template use.
func functions(t *testing.T, dir string) map[string]function.Function {
	text := func(params int, f func(a []cty.Value) (cty.Value, error)) function.Function {
		spec := &function.Spec{Type: function.StaticReturnType(cty.String), Impl: func(a []cty.Value, _ cty.Type) (cty.Value, error) { return f(a) }}
		for range params {
			spec.Params = append(spec.Params, function.Parameter{Type: cty.String})
		}
		return function.New(spec)
	}
	read := text(1, func(a []cty.Value) (cty.Value, error) {
		b, err := os.ReadFile(a[0].AsString())
		return cty.StringVal(string(b)), err
	})
	all := map[string]function.Function{
		"file": read, "ceil": stdlib.CeilFunc, "join": stdlib.JoinFunc, "replace": stdlib.ReplaceFunc,
		"base64encode": text(1, func(a []cty.Value) (cty.Value, error) {
			return cty.StringVal(base64.StdEncoding.EncodeToString([]byte(a[0].AsString()))), nil
		}),
	}
	all["templatefile"] = function.New(&function.Spec{
		Params: []function.Parameter{{Type: cty.String}, {Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(a []cty.Value, _ cty.Type) (cty.Value, error) {
			source, err := os.ReadFile(a[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			e, faults := hclsyntax.ParseTemplate(source, a[0].AsString(), hcl.InitialPos)
			if faults.HasErrors() {
				return cty.NilVal, faults
			}
			v, faults := e.Value(&hcl.EvalContext{Variables: a[1].AsValueMap(), Functions: all})
			if faults.HasErrors() {
				return cty.NilVal, faults
			}
			return v, nil
		},
	})
	return all
}

// userData renders what the instance is told, by the module's own expressions.
func userData(t *testing.T, name string, train ...string) string {
	t.Helper()
	m := readModule(t, name)
	var args []cty.Value
	for _, a := range train {
		args = append(args, cty.StringVal(a))
	}
	vars := cty.ObjectVal(map[string]cty.Value{
		"train": cty.ListVal(args), "limit_minutes": cty.NumberIntVal(120), "image": cty.StringVal("registry.example/lapwing-gpu@sha256:0"),
		"secret_arn": cty.StringVal("arn:aws:secretsmanager:eu-west-1:1:secret:lapwing"), "secret": cty.StringVal("projects/p/secrets/lapwing/versions/latest"),
	})
	dir := filepath.Join("terraform", name)
	ctx := &hcl.EvalContext{Functions: functions(t, dir), Variables: map[string]cty.Value{
		"var": vars, "path": cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal(dir)}),
	}}
	for _, b := range m.blocks {
		if b.Type != "locals" {
			continue
		}
		limit, faults := b.Body.Attributes["limit_seconds"].Expr.Value(ctx)
		if faults.HasErrors() {
			t.Fatal(faults)
		}
		ctx.Variables["local"] = cty.ObjectVal(map[string]cty.Value{"limit_seconds": limit})
		v, faults := b.Body.Attributes["user_data"].Expr.Value(ctx)
		if faults.HasErrors() {
			t.Fatal(faults)
		}
		return v.AsString()
	}
	t.Fatal("no locals")
	return ""
}

// The user data is cloud-init's YAML, carries run-once byte for byte, fits EC2's 16 KiB, arms the dead man's switch
// first, and names the secret without any place where its content could stand.
func TestUserData(t *testing.T) {
	script, err := os.ReadFile("run-once")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range modules {
		t.Run(name, func(t *testing.T) {
			text := userData(t, name, "--topic", "cars", "--model", "cars", "--where", `event.model == "M 3" && event.share > 5% $x`)
			if len(text) > 16<<10 {
				t.Errorf("%d bytes: EC2 takes 16 KiB", len(text))
			}
			if !strings.HasPrefix(text, "#cloud-config\n") {
				t.Error("cloud-init needs #cloud-config as the first line")
			}
			var c struct {
				Bootcmd [][]string
				Files   []struct{ Path, Permissions, Encoding, Content string } `yaml:"write_files"`
				Runcmd  [][]string
			}
			d := yaml.NewDecoder(strings.NewReader(text))
			d.KnownFields(true)
			if err := d.Decode(&c); err != nil {
				t.Fatal(err)
			}
			if len(c.Bootcmd) != 1 || fmt.Sprint(c.Bootcmd[0]) != "[shutdown -P +135]" {
				t.Errorf("bootcmd %v, want a shutdown 15 minutes after the limit", c.Bootcmd)
			}
			files := map[string]string{}
			for _, f := range c.Files {
				files[f.Path] = f.Content
			}
			if got, err := base64.StdEncoding.DecodeString(files["/opt/lapwing/run-once"]); err != nil || !bytes.Equal(got, script) {
				t.Errorf("run-once is not what is tested (%v)", err)
			}
			unit := files["/etc/systemd/system/lapwing-train.service"]
			want := fmt.Sprintf("--cloud %s --config %s:", name, name)
			if !strings.Contains(unit, want) || !strings.Contains(unit, `"event.model == \"M 3\" && event.share > 5%% $$x"`) {
				t.Errorf("the unit lacks %q or the quoted condition:\n%s", want, unit)
			}
		})
	}
}

// No variable of a module, field of a task or argument of the Job could carry a credential: what takes one is a
// secret's name, a file, or a mount.
func TestNoPlaceForCredentials(t *testing.T) {
	for _, name := range modules {
		for _, b := range readModule(t, name).blocks {
			if b.Type == "variable" && !slices.Contains([]string{"secret", "secret_arn"}, b.Labels[0]) {
				for _, word := range []string{"password", "secret", "token", "credential", "key"} {
					if strings.Contains(b.Labels[0], word) {
						t.Errorf("%s: variable %s asks for a credential, and would put it into state and user data", b.TypeRange, b.Labels[0])
					}
				}
			}
		}
	}
	for _, path := range []string{"skypilot.yaml", "job.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if code, _, _ := strings.Cut(line, "#"); strings.Contains(code, "sasl.") || strings.Contains(code, "secretKeyRef") || strings.Contains(code, "LAPWING_KAFKA") {
				t.Errorf("%s: %s", path, line)
			}
		}
	}
}
