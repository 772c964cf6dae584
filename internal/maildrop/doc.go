// Package maildrop writes messages into Maildirs so that they survive a power cut. It renders no
// paths and knows no recipients: it gets the path of a Maildir and bytes, and the bytes in the file
// are the bytes it got.
//
// The writer and its names are its own, because what a host is told as delivered hangs on them:
// which file is synced when, under which name and with which mode. Whatever reads Maildirs reads
// these, such as the Dir of github.com/emersion/go-maildir, with which the tests do so.
//
// # What is on disk after a crash
//
// A delivery does one thing after another, each only when the one before it has succeeded:
//
//  1. Missing directories are made from the top down. Each is synced once it has its mode, and its
//     parent is synced before anything is made inside. tmp comes last, when all else is durable.
//  2. A file is created: without a name, on the file system of tmp, where the system has such files
//     (O_TMPFILE on Linux); else in tmp, under a name that must not exist.
//  3. The content is written to it.
//  4. The content is made durable.
//  5. The file gets its name in new by a link, which fails if that name exists.
//  6. new is made durable.
//  7. The name in tmp, if there is one, is removed, and [Drop.Store] returns.
//
// Suppose the machine stops, and the disk keeps what was made durable and any part of what was not:
//
//   - during 1: some of the directories, none with anything in it. A later delivery makes the rest. It
//     first syncs the parent of the deepest directory that it finds, for that one may not be durable
//     yet; the ones above it are, or nothing would have been made inside them. In the same way the
//     presence of tmp says that the path to new is durable, to every process that keeps this order.
//   - during 2 to 4: nothing in new. A file without a name is gone. One with a name may be in tmp with
//     any part of the content, where no reader of a Maildir looks at it; [Drop.Clean] removes it
//     after 36 hours.
//   - during 5 and 6: new holds the message or does not, and if it does it is whole, because the
//     content was durable before the name was made. tmp may still have the other name of the same file.
//     The delivery has not been reported: the host tries again, and if the name is there, the message
//     is there twice. That is the price of never losing it.
//   - during 7 and ever after: new holds the message, whole. At worst the name in tmp is back.
//
// So a message is reported only when it is whole in new, and nothing else ever appears in new. Were
// the name in tmp removed before new is durable, a crash could leave the removal without the new
// name, and lose the message.
//
// Where the file system has no links, step 5 is a rename that does not replace, and 7 has nothing to
// remove. A crash during 5 and 6 may then leave the file under either name: in new or out of it, the
// same holds.
//
// Whoever is killed rather than cut off leaves what the disk would have kept in full: at worst a file
// in tmp, a message that was not reported, or a directory that has not yet got its mode.
//
// # What a group changes
//
// The calls of one Drop that are under way at the same time, on one file system, make steps 4 and 6
// together. Nothing of the order above changes for any one of them; what changes is which sync makes
// its step durable, and who calls it:
//
//   - One call leads, for all that have done step 3. It goes from round to round.
//   - A round begins with those whose content is written and those whose link was made in the round
//     before. Who writes on meanwhile, or comes, is for the next round: a sync covers what was done
//     before it began.
//   - Then comes one sync of the whole file system (syncfs). After it the contents and the links
//     that the round began with are durable. If the round began with one delivery only, its own
//     file or its own new is synced instead.
//   - Then the leader makes the links of those whose contents are durable: that is step 5, after step
//     4. Those whose links are durable are told: that is step 7, after step 6.
//   - When the leader's own delivery is done, another leads.
//
// So a crash finds each member at one of the steps above, and what it leaves of one says nothing
// about the others: each of their files has a name in new only after a sync that began when its
// content was written, and each is reported only after a sync that began when it had its name.
//
// A sync that failed does not say whose content was lost, and the system tells of a loss once, to the
// first sync that comes, through a descriptor that was open when it happened. The one that a group
// syncs through is opened before its first member writes. When a sync fails, every delivery that had
// begun to write by then, in this round or not, is synced by itself from there on, both file and
// directory, through descriptors of its own that were opened before the loss; they tell whose it
// was. A delivery that fails fails alone.
//
// A sync of a file or directory that failed is never repeated to be believed: the delivery is given up,
// and its names are removed. Should a crash then bring one back, the host delivers the message a second
// time.
//
// A sync of the file system waits for what others write to it, too. It is taken on Linux since 5.17,
// which tells its failures, and on ext4, XFS, Btrfs and tmpfs, which are known to wait for all. Linux
// has nothing to sync, and no failure to tell, on a file system that an error has made read-only: such a
// sync counts as one that failed.
// Everywhere else, and on other file systems, each delivery syncs its own file and directory;
// simultaneous ones gain as much as the file system lets them. On macOS these syncs go down to the
// medium (F_FULLFSYNC). Windows has no sync for directories; what it keeps of steps 1 and 6 is up to its
// file system.
//
// # Where it may write
//
// What a path's symbolic links lead to is up to the host as far as the root that it names, and no
// further: from there on directories are opened one in the other (os.Root), and a link that leads out
// of the root, or out of the Maildir from within, fails the delivery. Nobody who owns a Maildir can
// have mail, directories or the removal of leftovers end up elsewhere by putting a link in their way,
// at whatever moment.
package maildrop
