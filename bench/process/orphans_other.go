//go:build !linux

package process

import "syscall"

func orphansEnd() *syscall.SysProcAttr { return nil }
