package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lapwing-stream/lapwing/stream"
)

// AnyGeneration lets Move act on the alias as it is, whoever moved it last.
const AnyGeneration int64 = -1

// moved is the alias after one more move; Previous is the caller's business.
func (a Alias) moved(to int, who, why string, now time.Time) Alias {
	history := keep(append(slices.Clone(a.History), Move{From: a.Version, To: to, Who: who, When: now, Why: why}))
	share := a.Share
	if a.Generation == 0 {
		share = 1
	}
	return Alias{Version: to, Share: share, Generation: a.Generation + 1, Who: who, When: now, Why: why,
		Previous: append([]int{}, a.Previous...), History: history}
}

// keep drops the oldest beyond logLength.
func keep[T any](list []T) []T {
	if n := len(list) - logLength; n > 0 {
		return slices.Clone(list[n:])
	}
	return list
}

// Move points an alias at a version: a compare-and-set on generation, which is what the caller saw last
// (0 = the alias does not exist, AnyGeneration = whatever it is). The replaced version becomes what Rollback goes to.
func (r *Registry) Move(ctx context.Context, name, alias string, version int, generation int64, who, why string) (Alias, error) {
	return r.move(ctx, name, alias, generation, who, why, func(e *entry, a Alias) (int, []int, error) {
		m, ok := e.manifests[version]
		if !ok {
			return 0, nil, &NotFoundError{Ref: Ref{Name: name, Version: version}, Versions: e.versions(), Aliases: e.aliasNames()}
		}
		if _, err := e.whole(m); err != nil {
			return 0, nil, err
		}
		previous := a.Previous
		if a.Version > 0 && a.Version != version {
			previous = keep(append(slices.Clone(previous), a.Version))
		}
		return version, previous, nil
	})
}

// Rollback points an alias at the version that it meant before, leaving out those deleted since.
func (r *Registry) Rollback(ctx context.Context, name, alias, who, why string) (Alias, error) {
	return r.move(ctx, name, alias, AnyGeneration, who, why, func(e *entry, a Alias) (int, []int, error) {
		if a.Version == 0 {
			return 0, nil, &NotFoundError{Ref: Ref{Name: name, Alias: alias}, Versions: e.versions(), Aliases: e.aliasNames()}
		}
		previous := slices.Clone(a.Previous)
		for len(previous) > 0 {
			last := previous[len(previous)-1]
			previous = previous[:len(previous)-1]
			if m, ok := e.manifests[last]; ok && last != a.Version {
				if _, err := e.whole(m); err == nil {
					return last, previous, nil
				}
			}
		}
		return 0, nil, &rollbackError{name: name, alias: alias, now: a.Version, versions: e.versions()}
	})
}

type rollbackError struct {
	name, alias string
	now         int
	versions    []int
}

func (e *rollbackError) Error() string {
	return fmt.Sprintf("alias %s@%s has nothing to roll back to: it means version %d and every version before it is gone or there was none", e.name, e.alias, e.now)
}
func (e *rollbackError) Hint() string {
	return fmt.Sprintf("there are versions %s: lapwing models move %s@%s VERSION", spell(e.versions), e.name, e.alias)
}

func (r *Registry) move(ctx context.Context, name, alias string, generation int64, who, why string,
	choose func(*entry, Alias) (version int, previous []int, err error)) (Alias, error) {
	if !nameForm.MatchString(alias) {
		return Alias{}, fmt.Errorf("alias %q of model %q is not valid: use live, canary or shadow", alias, name)
	}
	if who == "" {
		who = Whoami()
	}
	var made Alias
	err := r.transact(ctx, name, transactionTimeout, func(x *index) ([]stream.Record, error) {
		e := x.models[name]
		if e == nil || len(e.manifests) == 0 {
			return nil, &NotFoundError{Ref: Ref{Name: name}, Names: x.names()}
		}
		a := e.aliases[alias]
		if generation != AnyGeneration && a.Generation != generation {
			return nil, &ConflictError{Name: name, Alias: alias, Asked: generation, Now: a}
		}
		version, previous, err := choose(e, a)
		if err != nil {
			return nil, err
		}
		made = a.moved(version, who, why, r.o.Now().UTC().Truncate(time.Millisecond))
		made.Previous = previous
		if made.Previous == nil {
			made.Previous = []int{}
		}
		return []stream.Record{r.record(aliasKeyOf(name, alias), encode(made))}, nil
	})
	if err != nil {
		return Alias{}, err
	}
	return made, nil
}

// Delete buries versions of one model: their manifests and parts, all of them in one transaction or none. It is
// refused while an alias means one of them. The numbers do not come back, since the head stays.
func (r *Registry) Delete(ctx context.Context, name string, versions ...int) error {
	return r.transact(ctx, name, transactionTimeout, func(x *index) ([]stream.Record, error) {
		e := x.models[name]
		if e == nil || len(e.manifests)+len(e.broken) == 0 {
			return nil, &NotFoundError{Ref: Ref{Name: name}, Names: x.names()}
		}
		records := []stream.Record{r.record(headKeyOf(name), encode(head{e.head}))}
		for _, version := range versions {
			if _, ok := e.manifests[version]; !ok && e.broken[version] == "" {
				return nil, &NotFoundError{Ref: Ref{Name: name, Version: version}, Versions: e.versions(), Aliases: e.aliasNames()}
			}
			for _, alias := range e.aliasNames() {
				if e.aliases[alias].Version == version {
					return nil, &topicError{
						what: fmt.Sprintf("model %s/%d is what %s@%s means; it cannot be deleted", name, version, name, alias),
						hint: e.wayOut(name, alias, versions),
					}
				}
			}
			records = append(records, r.record(manifestKeyOf(name, version), nil))
		}
		var parts []string
		for id := range e.parts {
			if slices.Contains(versions, id.version) {
				parts = append(parts, fmt.Sprintf("%s/%d/%s/%d", name, id.version, id.digest8, id.part))
			}
		}
		slices.Sort(parts)
		for _, key := range parts {
			records = append(records, r.record(key, nil))
		}
		return records, nil
	})
}

// wayOut is the command that takes an alias off what is to be deleted: back where that is possible, else to the
// newest version that stays.
func (e *entry) wayOut(name, alias string, leaving []int) string {
	stays := func(version int) bool {
		m, ok := e.manifests[version]
		if !ok || slices.Contains(leaving, version) {
			return false
		}
		_, err := e.whole(m)
		return err == nil
	}
	for _, before := range slices.Backward(e.aliases[alias].Previous) {
		m, ok := e.manifests[before]
		if !ok {
			continue // deleted since: rolling back leaves it out
		}
		if _, err := e.whole(m); err == nil && before != e.aliases[alias].Version {
			if stays(before) {
				return fmt.Sprintf("move the alias first: lapwing models rollback %s@%s (to version %d)", name, alias, before)
			}
			break
		}
	}
	for _, version := range slices.Backward(e.versions()) {
		if stays(version) {
			return fmt.Sprintf("move the alias first: lapwing models move %s@%s %d", name, alias, version)
		}
	}
	return fmt.Sprintf("publish another version first, which the alias can mean: lapwing train --topic TOPIC --model %s", name)
}
