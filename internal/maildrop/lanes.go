package maildrop

import (
	"path/filepath"
	"sync"
)

// lanes are the turns, counted for each file system by itself: whoever delivers to one that is slow, or does not answer,
// keeps nobody waiting who delivers to another.
type lanes struct {
	mu       sync.Mutex
	byDevice map[uint64]*lane
	byRoot   map[string]*lane // up to maxRoots
}

// maxRoots is of how many roots it is remembered on which file system they are.
const maxRoots = 4096

// lane is the turns on one file system.
type lane struct {
	slots  *slots        // for Drop.Threads
	opened chan struct{} // has room for Drop.Open
}

// ofRoot returns the lane of a root, or nil if it is not known.
func (l *lanes) ofRoot(root string) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byRoot[root]
}

// ofDevice returns the lane of a file system.
func (l *lanes) ofDevice(device uint64, threads, open int) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.byDevice[device]
	if found == nil {
		found = &lane{newSlots(threads), make(chan struct{}, open)}
		if l.byDevice == nil {
			l.byDevice = make(map[uint64]*lane)
		}
		l.byDevice[device] = found
	}
	return found
}

// remember notes the lane of a root. Should another file system be mounted there later, its deliveries take their
// turns with the old one's, which is slower at worst.
func (l *lanes) remember(root string, its *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byRoot == nil || len(l.byRoot) >= maxRoots {
		l.byRoot = make(map[string]*lane)
	}
	l.byRoot[root] = its
}

// enterLane finds the lane of the delivery's root. To look where a root is that is not known takes a turn
// in a lane that there is for nothing else: the look itself may have to wait for a disk.
func (v *delivery) enterLane() error {
	d := v.drop
	if v.lane = d.lanes.ofRoot(v.to.Root); v.lane != nil {
		return nil
	}
	v.lane = &lane{slots: d.looking}
	var device uint64
	if err := v.inSlot(func() error { device = v.rootDevice(); return nil }); err != nil {
		return err
	}
	v.lane = d.lanes.ofDevice(device, d.threads, d.open)
	d.lanes.remember(v.to.Root, v.lane)
	return nil
}

// rootDevice is the number of the file system that the root is on, or is going to be on.
func (v *delivery) rootDevice() uint64 {
	for path := v.to.Root; ; path = filepath.Dir(path) {
		info, err := v.disk.stat(path)
		if err == nil {
			return identify(info).device
		}
		if path == filepath.Dir(path) {
			return 0
		}
	}
}
