//go:build !linux

package maildrop

import (
	"errors"
	"io/fs"
)

func (t osTree) createUnnamed(string, fs.FileMode) (file, error) { return nil, errors.ErrUnsupported }

func (d osDirectory) link(file, string) error { return errors.ErrUnsupported }

func (d osDirectory) volume(uint64) (volume, error) { return nil, errors.ErrUnsupported }
