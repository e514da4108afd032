package main

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
)

// Config is every setting. A field here is the only place that declares one: its tags feed the YAML file, the
// environment, flags, `lapwing config` and docs/configuration.md.
//
//	yaml     key; the path of keys names the setting: train.max_memory, LAPWING_TRAIN_MAX_MEMORY, --max-memory
//	default  as it would be written
//	doc      one sentence, starting in lower case
//	unit     how a value is written
//	oneof    the values allowed, parted by |
//	min, max bounds, for numbers
//	flag     the flag's name where it is not the last key with dashes
//	secret   "true": never shown
//	required "true": an entry of a list without it is refused
//
// A setting that nothing reads yet is not declared: writing it must be an error, not silence.
type Config struct {
	Kafka       map[string]string `yaml:"kafka" default:"bootstrap.servers=localhost:9092" unit:"librdkafka property: value" doc:"any librdkafka property, passed on as it is; those that Lapwing must own are refused with the reason"`
	ModelsTopic string            `yaml:"models_topic" default:"lapwing.models" unit:"topic" doc:"the topic that holds the models: compacted, one partition"`
	HTTP        string            `yaml:"http" default:"127.0.0.1:8080" unit:"HOST:PORT|none" doc:"where serve answers /metrics, /healthz and /readyz"`
	Delivery    string            `yaml:"delivery" default:"exactly_once" oneof:"exactly_once|at_least_once" doc:"what becomes of results that were cut short: exactly_once writes results and offsets in one transaction, for readers of committed records, who see a score when that is committed: some milliseconds later at low rates, up to commit_interval under load; at_least_once writes them again, needs no transactions, and a score can be read when it is written"`
	LogLevel    string            `yaml:"log_level" default:"info" oneof:"debug|info|warn|error" doc:"the least severe log line that is written"`
	Pyroscope   PyroscopeConfig   `yaml:"pyroscope" doc:"continuous profiles of train and serve"`
	GPU         GPUConfig         `yaml:"gpu" doc:"the GPU, for the engines cuda and auto of lapwing-gpu"`
	Train       TrainConfig       `yaml:"train" doc:"how a model is trained"`
	Score       ScoreConfig       `yaml:"score" doc:"how records are scored, by serve and score"`
	Streams     []StreamConfig    `yaml:"streams" doc:"what serve scores: one entry a model and its input topics; serve --topic makes one stream in place of them"`
}

// PyroscopeConfig says where profiles go.
type PyroscopeConfig struct {
	URL      string        `yaml:"url" default:"" unit:"URL" flag:"pyroscope-url" doc:"push profiles to this Pyroscope server; empty: no profiling"`
	User     string        `yaml:"user" default:"" unit:"name" flag:"pyroscope-user" doc:"user for basic authentication there"`
	Password string        `yaml:"password" default:"" unit:"secret" flag:"pyroscope-password" secret:"true" doc:"password of that user"`
	Interval time.Duration `yaml:"interval" default:"15s" min:"1000000000" unit:"duration" flag:"pyroscope-interval" doc:"time between two uploads"`
}

// GPUConfig says which GPU computes, and what it is watched by.
type GPUConfig struct {
	Device    int           `yaml:"device" default:"0" min:"0" max:"1023" unit:"number" flag:"gpu" doc:"which GPU: its number among those that CUDA_VISIBLE_DEVICES leaves visible"`
	BatchFrom int           `yaml:"batch_from" default:"0" min:"0" unit:"records" flag:"gpu-batch-from" doc:"batches of so many records or more are scored on the GPU, smaller ones on the CPU, with the same scores; 0: from where the GPU was measured to be faster"`
	SelfTest  time.Duration `yaml:"self_test" default:"1m" min:"1000000" unit:"duration" flag:"gpu-self-test" doc:"how often the GPU must give the numbers again that it gave when the model was loaded; if it does not, the model is loaded anew, and the second time the GPU is given up"`
	Timeout   time.Duration `yaml:"timeout" default:"30s" min:"1000000" unit:"duration" flag:"gpu-timeout" doc:"a call of the GPU's driver that takes longer means that the GPU is lost"`
}

// TrainConfig is the section of `lapwing train`.
type TrainConfig struct {
	Engine          string        `yaml:"engine" default:"auto" oneof:"auto|cpu|gorgonia|cuda" doc:"what computes: auto takes the fastest that works here and says which; a named one never falls back; cuda needs lapwing-gpu"`
	MaxMemory       Size          `yaml:"max_memory" default:"1GiB" min:"1048576" unit:"size" doc:"memory for the history's rows; those beyond it go to a file in spill_dir, and the model is the same"`
	SpillDir        string        `yaml:"spill_dir" default:"" unit:"folder" doc:"where that file is, which is gone when training ends, however it ends; empty: the system's folder for temporary files"`
	From            string        `yaml:"from" default:"" unit:"TIME|OFFSETS" doc:"reading begins at the first record of this time or later, such as 2026-11-01 or 2026-11-01T14:00+01:00, UTC without an offset; or at offsets by partition, such as 0:1500,1-5:900; earliest, or empty: at the oldest record kept"`
	Until           string        `yaml:"until" default:"" unit:"TIME|OFFSETS" doc:"reading ends before the first record of this time or later, or before these offsets; end, or empty: at the end found at the start"`
	Last            time.Duration `yaml:"last" default:"0s" min:"0" unit:"duration" doc:"reading begins so long before until, or before the topic's latest record, in place of from; 0: as from says"`
	MaxRejected     Share         `yaml:"max_rejected" default:"5%" min:"0" max:"1" unit:"share" doc:"training stops when more of the records than this cannot be read"`
	AllowLoss       Share         `yaml:"allow_loss" default:"5%" min:"0" max:"1" unit:"share" doc:"training stops when retention deletes more of the history than this while it is read"`
	MinRows         int           `yaml:"min_rows" default:"100" min:"1" unit:"rows" doc:"fewest usable rows to train on"`
	AlarmRate       Share         `yaml:"alarm_rate" default:"0.01%" min:"0" max:"0.5" unit:"share" doc:"share of the history that may lie above the threshold"`
	AlarmsPerDay    float64       `yaml:"alarms_per_day" default:"0" min:"0" max:"1e11" unit:"alarms" doc:"scores above the threshold a day, at the history's own records a day, in place of alarm_rate; 0: alarm_rate"`
	ThresholdMethod string        `yaml:"threshold_method" default:"quantile" oneof:"quantile|pot|label" doc:"how the threshold is chosen: a quantile of the history's scores, a fit of their tail (peaks over threshold), or the labels of --label"`
	ThresholdGoal   string        `yaml:"threshold_goal" default:"f1" unit:"f1|recall=SHARE|precision=SHARE" doc:"what a threshold by label shall reach"`
	Detector        string        `yaml:"detector" default:"blend" oneof:"blend|autoencoder" doc:"blend: distance to prototypes, and whitened error of a narrow autoencoder; autoencoder: the latter alone"`
	Trim            Share         `yaml:"trim" default:"25%" min:"0" max:"0.9" unit:"share" doc:"share of the history that is not learned from: the rows that have fewest like them, as faults may be among them; 0 where the history is known to be sound; where columns determine each other at most 5 % are, those that break their relations most"`
	Layers          []int         `yaml:"layers" default:"" min:"1" unit:"widths" doc:"widths of the hidden layers, the narrow code among them, such as 14,7,14; empty: chosen from the columns"`
	Candidates      int           `yaml:"candidates" default:"1" min:"1" max:"1024" unit:"networks" doc:"how many networks are trained over the same rows, of which the best is published: up to 1024 by seed, 9 by rate or width"`
	Vary            string        `yaml:"vary" default:"seed" oneof:"seed|rate|width" doc:"what candidates differ in: seed (first weights), rate (learning rate times 1, 1/2, 2, 1/4, 4, … 16) or width (hidden layers times 1, 1/2, 2, 3/4, 3/2, 1/4, 3, 1/8, 4); widths are judged by how they rank anomalies, the others by validation loss"`
	PerKey          bool          `yaml:"per_key" default:"false" unit:"true|false" doc:"a model for every key of the history, NAME.KEY, in place of one for all; keys are the values of --key, or the records' own"`
	MaxKeys         int           `yaml:"max_keys" default:"256" min:"1" max:"1024" unit:"keys" doc:"most keys that get a model with per_key: those with the most rows; the others are named"`
	Rolling         int           `yaml:"rolling" default:"0" min:"0" max:"1000" unit:"records" doc:"adds to every number the mean and the standard deviation of the key's last so many records as features; 0: as the spec says, else none"`
	RollingKeys     int           `yaml:"rolling_keys" default:"100000" min:"1" unit:"keys" doc:"most keys of a partition whose last records are held for rolling features; the longest unseen goes first; each takes 4 bytes a value and 200 more"`
	Seed            uint64        `yaml:"seed" default:"1" doc:"start of every random choice; the same seed, data and engine give the same bytes"`
	Threads         int           `yaml:"threads" default:"0" min:"0" unit:"threads" doc:"threads that compute; 0: one for each core; the result does not depend on it"`
	BatchSize       int           `yaml:"batch_size" default:"256" min:"1" unit:"rows" doc:"rows in one step of training"`
	Epochs          int           `yaml:"epochs" default:"0" min:"0" unit:"passes" doc:"passes over the rows that are learned from; 0: 3, or as many as make 1,000 steps"`
	Patience        int           `yaml:"patience" default:"10" min:"1" unit:"evaluations" doc:"evaluations without a better validation loss before training ends"`
	Activation      string        `yaml:"activation" default:"tanh" oneof:"tanh|relu|leaky_relu|elu|gelu|sigmoid|linear" doc:"what the hidden layers bend their sums by; the code is linear"`
	Loss            string        `yaml:"loss" default:"mse" oneof:"mse|huber" doc:"what training makes small: mse, the mean square of what the network gets wrong; huber, a square up to huber_delta and a line beyond, so that large errors count less"`
	HuberDelta      float64       `yaml:"huber_delta" default:"1" min:"1e-6" max:"1e6" unit:"deviations" doc:"error from which huber is a line, in standard deviations of a column"`
	Optimizer       string        `yaml:"optimizer" default:"adam" oneof:"adam|sgd" doc:"how a gradient becomes a step; sgd is plain: no momentum"`
	Checkpoint      time.Duration `yaml:"checkpoint" default:"60s" min:"0" unit:"duration" doc:"how often what was learned so far is written to the topic lapwing.checkpoints, from where --resume goes on to the same bytes; an interruption writes one too; 0: never"`
	LearningRate    float64       `yaml:"learning_rate" default:"0" min:"0" max:"1000" doc:"the highest rate, reached after the warm-up; lowered when training diverges; 0: 0.003 for adam, 0.3 for sgd"`
}

// ScoreConfig is the section of `lapwing serve` and `lapwing score`.
type ScoreConfig struct {
	Engine             string        `yaml:"engine" default:"auto" oneof:"auto|cpu|gorgonia|cuda" doc:"what computes: auto takes the fastest that works here and says which; a named one never falls back; cuda needs lapwing-gpu"`
	MaxBatch           int           `yaml:"max_batch" default:"4096" min:"1" max:"1048576" unit:"records" doc:"most records scored together; a batch forms only while the scorer is busy"`
	Queue              int           `yaml:"queue" default:"65536" min:"1" unit:"records" doc:"most records waiting to be scored, for each stream"`
	MaxInFlight        int           `yaml:"max_in_flight" default:"4" min:"1" max:"1024" unit:"batches" doc:"most batches between the read of a record and the commit of its offset"`
	RollingRewind      int           `yaml:"rolling_rewind" default:"20000" min:"1" unit:"offsets" doc:"how far back a partition is read again, without output, when it is assigned or a model with other rolling features takes over"`
	RollingKeys        int           `yaml:"rolling_keys" default:"100000" min:"1" unit:"keys" doc:"most keys of a partition whose last records are held for rolling features; the longest unseen goes first; each takes 4 bytes a value and 200 more"`
	CommitInterval     time.Duration `yaml:"commit_interval" default:"100ms" min:"1000000" unit:"duration" doc:"how often offsets are committed, and with exactly_once their results; those are committed at once when no record waits"`
	CommitRecords      int           `yaml:"commit_records" default:"65536" min:"1" unit:"records" doc:"records after which a commit comes before commit_interval has passed"`
	TransactionTimeout time.Duration `yaml:"transaction_timeout" default:"10s" min:"1000000000" unit:"duration" doc:"the broker aborts a transaction of exactly_once that is open for longer: so long records of a copy that died may be held back"`
	ShutdownTimeout    time.Duration `yaml:"shutdown_timeout" default:"30s" min:"1000000" unit:"duration" doc:"how long a stop may take to finish, deliver and commit what was read"`
}

// StreamConfig is one entry of streams.
type StreamConfig struct {
	Model         string       `yaml:"model" default:"" unit:"name" required:"true" doc:"the model that scores this stream"`
	Alias         string       `yaml:"alias" default:"live" unit:"name" doc:"which version of it: the one that this alias means, followed as it moves"`
	Input         InputConfig  `yaml:"input" required:"true" doc:"where records come from"`
	Output        string       `yaml:"output" default:"" unit:"topic" doc:"scores go here; empty: T.scores for the input topic T; must be named with several input topics"`
	Alerts        AlertsConfig `yaml:"alerts" doc:"when alerts are raised and cleared; none leaves alerts out"`
	DLQ           string       `yaml:"dlq" default:"" unit:"topic" doc:"records that cannot be scored go here with the reason; empty: T.dlq"`
	Start         string       `yaml:"start" default:"earliest" unit:"earliest|latest|after-training|TIME" doc:"where the first start begins; later starts go on from the committed offsets"`
	Where         string       `yaml:"where" default:"" unit:"condition" doc:"score only records for which this holds, such as event.speed > 0; the others are counted; empty: all"`
	Contributions string       `yaml:"contributions" default:"anomalies" oneof:"anomalies|all" doc:"which scores carry the features that contributed most"`
	InstanceID    string       `yaml:"instance_id" default:"" unit:"name" doc:"makes this process a static member of its consumer group: a quick restart moves no partitions"`
}

// InputConfig is a stream's input.
type InputConfig struct {
	Topics []string `yaml:"topics" default:"" unit:"topics" flag:"topic" required:"true" doc:"input topics"`
	Format string   `yaml:"format" default:"" oneof:"|json|csv" doc:"how values are written; empty: as the model was trained"`
	Key    string   `yaml:"key" default:"" unit:"field" doc:"field that names the thing measured where the record has no key; empty: as the model was trained"`
	Time   string   `yaml:"time" default:"" unit:"field" doc:"field that holds the event time; empty: as the model was trained"`
}

// AlertsConfig says how scores of one key become alerts.
type AlertsConfig struct {
	Topic       string        `yaml:"topic" default:"" unit:"topic" flag:"alerts" doc:"alerts go here; empty: T.alerts; none leaves alerts out"`
	RaiseAfter  int           `yaml:"raise_after" default:"3" min:"1" unit:"records" doc:"anomalies of a key in a row that raise an alert"`
	ClearAfter  int           `yaml:"clear_after" default:"10" min:"1" unit:"records" doc:"normal records of a key in a row that clear it"`
	RepeatEvery time.Duration `yaml:"repeat_every" default:"10m" min:"1000000" unit:"duration" doc:"a lasting alert is repeated this often, by event time"`
	ClearSilent time.Duration `yaml:"clear_silent" default:"24h" min:"1000000" unit:"duration" doc:"an alert whose key is silent this long is cleared, by event time"`
	AlertKeys   int           `yaml:"alert_keys" default:"1000000" min:"1" unit:"keys" doc:"most keys that are watched at once; the longest unseen goes first, and is cleared"`
	AlertRewind int           `yaml:"alert_rewind" default:"1000" min:"0" unit:"records" doc:"records read again without output after a restart, to count a key's last anomalies"`
}

// notYet are keys that the configuration's contract has and that nothing reads yet, with what they wait for.
var notYet = map[string]string{
	"grpc":           "this version has no gRPC server",
	"admin":          "this version has no admin server",
	"score.max_wait": "this version takes no scoring calls",
}

// setting is one declared value, as the tags have it.
type setting struct {
	path    string // train.max_memory
	section string // train; "" at the top
	env     string // LAPWING_TRAIN_MAX_MEMORY; "" within lists
	flag    string // max-memory
	index   []int  // of the field, from its root struct
	typ     reflect.Type
	def     string
	doc     string
	unit    string
	oneof   []string
	min     string
	max     string
	secret  bool
	require bool
	group   bool // a section: has no value of its own
	list    bool // streams
}

// declared are the settings of Config in order of declaration; the list's own are in streamDeclared.
var declared = sync.OnceValue(func() []setting { return declare(reflect.TypeFor[Config](), "", nil, true) })

// streamDeclared are the settings of one entry of streams, with paths from the entry.
var streamDeclared = sync.OnceValue(func() []setting { return declare(reflect.TypeFor[StreamConfig](), "", nil, false) })

func declare(t reflect.Type, prefix string, index []int, env bool) []setting {
	var all []setting
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		s := setting{
			path: prefix + key, section: strings.TrimSuffix(prefix, "."), index: append(append([]int(nil), index...), i), typ: f.Type,
			def: f.Tag.Get("default"), doc: f.Tag.Get("doc"), unit: f.Tag.Get("unit"), flag: f.Tag.Get("flag"),
			min: f.Tag.Get("min"), max: f.Tag.Get("max"), secret: f.Tag.Get("secret") == "true", require: f.Tag.Get("required") == "true",
		}
		if oneof := f.Tag.Get("oneof"); oneof != "" {
			s.oneof = strings.Split(oneof, "|")
		}
		if s.flag == "" {
			s.flag = strings.ReplaceAll(key, "_", "-")
		}
		if env {
			s.env = envName(s.path)
		}
		switch {
		case f.Type.Kind() == reflect.Struct:
			s.group = true
			all = append(all, s)
			all = append(all, declare(f.Type, s.path+".", s.index, env)...)
		case f.Type == reflect.TypeFor[[]StreamConfig]():
			s.list = true
			s.env = ""
			all = append(all, s)
		default:
			all = append(all, s)
		}
	}
	return all
}

// envPrefix starts every environment variable that Lapwing reads.
const envPrefix = "LAPWING_"

// envName is the environment variable of a setting: LAPWING_TRAIN_MAX_MEMORY, LAPWING_KAFKA_SASL_PASSWORD.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// lookup finds a declared setting by its path.
func lookup(all []setting, path string) (setting, bool) {
	for _, s := range all {
		if s.path == path {
			return s, true
		}
	}
	return setting{}, false
}

// allowed words what a setting takes.
func (s *setting) allowed() string {
	if len(s.oneof) > 0 {
		var words []string
		for _, o := range s.oneof {
			if o != "" {
				words = append(words, o)
			}
		}
		return strings.Join(words, ", ")
	}
	switch s.typ {
	case reflect.TypeFor[Size]():
		return "a size, such as 512MiB or 1GiB"
	case reflect.TypeFor[Share]():
		return "a share, such as 5% or 0.05"
	case reflect.TypeFor[time.Duration]():
		return "a duration, such as 250ms, 10s, 5m, 24h or 7d"
	case reflect.TypeFor[[]int]():
		return "whole numbers, such as 14,7,14"
	case reflect.TypeFor[[]string]():
		return "names, parted by commas"
	}
	switch s.typ.Kind() {
	case reflect.Int, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	if s.unit != "" {
		return s.unit
	}
	return "text"
}

// set parses text into v, which has the setting's type, and checks bounds. The error words what is allowed.
func (s *setting) set(v reflect.Value, text string) error {
	if err := parseValue(v, text); err != nil {
		return fmt.Errorf("%q is not %s", text, s.allowed())
	}
	if len(s.oneof) > 0 {
		ok := false
		for _, o := range s.oneof {
			ok = ok || o == text
		}
		if !ok {
			if n := nearest(text, s.oneof); n != "" {
				return fmt.Errorf("%q is not one of %s; did you mean %s?", text, s.allowed(), n)
			}
			return fmt.Errorf("%q is not one of %s", text, s.allowed())
		}
	}
	return s.bounds(v)
}
