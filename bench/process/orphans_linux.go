package process

import "syscall"

// orphansEnd has the kernel end the child when the bench is killed and can no longer do it.
func orphansEnd() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
