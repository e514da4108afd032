//go:build !linux

package main

// readSystem: only Linux is asked; elsewhere these things are not known.
func (m *machine) readSystem() {}
