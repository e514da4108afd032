package cloud

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// The task is what SkyPilot's own schemas take, gives its machine back by itself, and copies files that exist.
func TestSkyPilotTask(t *testing.T) {
	text, err := os.ReadFile("testdata/skypilot.json")
	if err != nil {
		t.Fatal(err)
	}
	var schemas map[string]any
	if err := json.Unmarshal(text, &schemas); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile("skypilot.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var task map[string]any
	if err := yaml.Unmarshal(text, &task); err != nil {
		t.Fatal(err)
	}
	// The schema's numbers are JSON's.
	text, err = json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &task); err != nil {
		t.Fatal(err)
	}
	resources, _ := task["resources"].(map[string]any)
	for name, value := range map[string]any{"task": task, "resources": resources} {
		c := jsonschema.NewCompiler()
		if err := c.AddResource(name+".json", schemas[name]); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if stop, _ := resources["autostop"].(map[string]any); stop["down"] != true {
		t.Errorf("autostop is %v: the machine would stay", stop)
	}
	files, _ := task["file_mounts"].(map[string]any)
	here := 0
	for _, from := range files {
		if path, ok := strings.CutPrefix(from.(string), "docker/cloud/"); ok {
			here++
			if _, err := os.Stat(filepath.FromSlash(path)); err != nil {
				t.Error(err)
			}
		}
	}
	if here != 1 {
		t.Errorf("%d files of ours are copied, want run-once", here)
	}
}
