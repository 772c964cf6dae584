//go:build !unix

package delivery

func umask(int) int { return 0 }
