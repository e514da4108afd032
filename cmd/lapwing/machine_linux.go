package main

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readSystem fills in what Linux says.
func (m *machine) readSystem() {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		ok := state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
		m.synchronised = &ok
		m.clockError = time.Duration(t.Maxerror) * time.Microsecond
	}
	m.memory = totalMemory()
	if limit, ok := cgroupFile("memory.max", parseLimit); ok && int64(limit) < m.memory {
		m.memory, m.memoryLimit = int64(limit), true
	}
	if q, ok := cgroupFile("cpu.max", parseQuota); ok {
		m.quota = q
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(m.diskPath, &fs); err == nil {
		m.disk = int64(fs.Bavail) * int64(fs.Bsize)
		m.diskMemory = fs.Type == unix.TMPFS_MAGIC
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		m.files = files.Cur
	}
}

// totalMemory is the machine's, in bytes; 0 = not known.
func totalMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
