//go:build !race

package trainer

const race = false
