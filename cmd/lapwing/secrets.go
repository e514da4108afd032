package main

import (
	"io"
	"reflect"
	"regexp"
	"strings"
)

// hidden stands where a secret would.
const hidden = "********"

// secretProperty says whether a librdkafka property holds a secret. It goes by words in the name, so that
// a property of a later librdkafka is hidden too.
func secretProperty(name string) bool {
	for _, word := range []string{"password", "passphrase", "secret", "token", "key.pem", "private.key", "jaas", "oauthbearer.config", "credentials"} {
		if strings.Contains(name, word) {
			// The addresses and file names around them are no secrets.
			return !strings.HasSuffix(name, ".url") && !strings.HasSuffix(name, ".location") && !strings.HasSuffix(name, ".file")
		}
	}
	return false
}

var userInfo = regexp.MustCompile(`://[^/@\s"']+@`)

// hideURLs takes name and password out of URLs.
func hideURLs(s string) string { return userInfo.ReplaceAllString(s, "://"+hidden+"@") }

// secrets are the values that must not be written anywhere.
func (e *effective) secrets() []string {
	var list []string
	for k, v := range e.Kafka {
		if secretProperty(k) && v != "" {
			list = append(list, v)
		}
	}
	root := reflect.ValueOf(e.Config)
	for _, s := range declared() {
		if s.secret && !root.FieldByIndex(s.index).IsZero() {
			list = append(list, root.FieldByIndex(s.index).String())
		}
	}
	for _, m := range userInfo.FindAllString(e.Pyroscope.URL, -1) {
		m = strings.TrimSuffix(strings.TrimPrefix(m, "://"), "@")
		if _, password, ok := strings.Cut(m, ":"); ok && password != "" {
			list = append(list, password)
		}
	}
	return list
}

// scrubber takes secrets out of what is written to stderr: a client library may quote a property that it
// could not use.
type scrubber struct {
	w       io.Writer
	secrets []string
}

func (s *scrubber) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.w, s.scrub(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *scrubber) scrub(text string) string {
	for _, secret := range s.secrets {
		// A password as short as this stands in ordinary words, and would garble every line.
		if len(secret) >= 4 {
			text = strings.ReplaceAll(text, secret, hidden)
		}
	}
	return hideURLs(text)
}
