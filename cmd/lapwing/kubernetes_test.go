package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
	"go.yaml.in/yaml/v3"
)

// statefulSet is what the tests ask of docker/kubernetes/serve.yaml; its form is kubernetes-validate's matter (make lint).
type statefulSet struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		Template struct {
			Spec struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []struct {
					Args []string
					Env  []struct {
						Name      string
						ValueFrom map[string]map[string]string `yaml:"valueFrom"`
					}
				}
			}
		}
	}
}

// scaledObject is KEDA's (keda.sh/v1alpha1), with the fields that are used: another one is a typing error.
type scaledObject struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		Target struct {
			APIVersion string `yaml:"apiVersion"`
			Kind, Name string
		} `yaml:"scaleTargetRef"`
		Min      int `yaml:"minReplicaCount"`
		Max      int `yaml:"maxReplicaCount"`
		Polling  int `yaml:"pollingInterval"`
		Fallback struct {
			FailureThreshold int `yaml:"failureThreshold"`
			Replicas         int
			Behavior         string
		}
		Advanced struct {
			HPA struct {
				Behavior map[string]struct {
					Window   int `yaml:"stabilizationWindowSeconds"`
					Policies []struct {
						Type          string
						Value         int
						PeriodSeconds int `yaml:"periodSeconds"`
					}
				}
			} `yaml:"horizontalPodAutoscalerConfig"`
		}
		Triggers []struct {
			Type     string
			Metadata map[string]yaml.Node
		}
	}
}

// kafkaTrigger is what KEDA 2.15 knows of a kafka trigger, without what belongs to a TriggerAuthentication.
var kafkaTrigger = []string{"bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy", "allowIdleConsumers",
	"scaleToZeroOnInvalidOffset", "excludePersistentLag", "limitToPartitionsWithLag", "version", "partitionLimitation", "sasl", "tls", "unsafeSsl"}

// The manifests fit each other and the program: serve takes the very arguments, scores with them as a member of the group whose lag
// KEDA looks at, and has the time to end that it asks for.
func TestKubernetesManifests(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("../../docker/kubernetes", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var set statefulSet
	for d := yaml.NewDecoder(bytes.NewReader(read("serve.yaml"))); set.Kind != "StatefulSet"; {
		set = statefulSet{}
		if err := d.Decode(&set); errors.Is(err, io.EOF) {
			t.Fatal("serve.yaml has no StatefulSet")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var scaled scaledObject
	d := yaml.NewDecoder(bytes.NewReader(read("scaledobject.yaml")))
	d.KnownFields(true)
	if err := d.Decode(&scaled); err != nil {
		t.Fatal(err)
	}
	target := scaled.Spec.Target
	if scaled.APIVersion != "keda.sh/v1alpha1" || scaled.Kind != "ScaledObject" || target.APIVersion != set.APIVersion || target.Kind != set.Kind || target.Name != set.Metadata.Name {
		t.Errorf("%s %s scales %+v; serve.yaml has %s %s %s", scaled.APIVersion, scaled.Kind, target, set.APIVersion, set.Kind, set.Metadata.Name)
	}
	if scaled.Spec.Min < 1 || scaled.Spec.Max < scaled.Spec.Min {
		t.Errorf("%d to %d copies: alerts are cleared by a copy that runs", scaled.Spec.Min, scaled.Spec.Max)
	}
	if len(scaled.Spec.Triggers) != 1 || scaled.Spec.Triggers[0].Type != "kafka" {
		t.Fatalf("triggers: %+v", scaled.Spec.Triggers)
	}
	trigger := map[string]string{}
	for name, v := range scaled.Spec.Triggers[0].Metadata {
		if !slices.Contains(kafkaTrigger, name) || v.Tag != "!!str" { // Kubernetes refuses numbers and booleans there
			t.Errorf("trigger: %s is %q, a %s", name, v.Value, v.Tag)
		}
		trigger[name] = v.Value
	}
	serve := set.Spec.Template.Spec.Containers[0]
	for _, e := range serve.Env {
		if e.Name == "POD_NAME" && e.ValueFrom["fieldRef"]["fieldPath"] != "metadata.name" {
			t.Errorf("POD_NAME: %v", e.ValueFrom)
		}
	}

	b := newBed(t)
	score := b.object("config serve --json")["config"].(map[string]any)["score"].(map[string]any)
	if least, err := time.ParseDuration(score["shutdown_timeout"].(string)); err != nil || time.Duration(set.Spec.Template.Spec.Grace)*time.Second <= least {
		t.Errorf("the pod is killed after %d s; serve may take %v to stop (%v)", set.Spec.Template.Spec.Grace, least, err)
	}
	b.ok("generate cars --rate 0 --count 2000 --cars 20 --topic " + trigger["topic"])
	b.ok("train --topic cars --model cars --layers 4 --epochs 1")
	writeFile(t, "lapwing.yaml", "kafka: {bootstrap.servers: \""+b.broker+"\"}\n")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var errs buffer
	ended := make(chan error, 2)
	for _, pod := range []string{"lapwing-serve-0", "lapwing-serve-1"} {
		args := slices.Clone(serve.Args)
		for i := range args {
			args[i] = strings.NewReplacer("/etc/lapwing/", "", "$(POD_NAME)", pod, "0.0.0.0:8080", "127.0.0.1:0").Replace(args[i])
		}
		go func() { ended <- run(ctx, args, world{in: strings.NewReader(""), out: io.Discard, err: &errs}) }()
	}
	awaitTopic(t, b.broker, "cars.scores")
	if n := strings.Count(b.ok("tail scores --topic cars --from-beginning -n 2000 --json"), `"status":"ok"`); n != 2000 {
		t.Errorf("%d of 2000 scores are ok", n)
	}
	stop()
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
	}
	c, err := stream.Connect(t.Context(), stream.Options{Properties: map[string]string{"bootstrap.servers": b.broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	offsets, err := c.Committed(t.Context(), trigger["consumerGroup"], []string{trigger["topic"]})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, o := range offsets {
		n += o
	}
	if n != 2000 {
		t.Errorf("group %s, whose lag KEDA looks at, has committed %d of 2000 records", trigger["consumerGroup"], n)
	}
}
