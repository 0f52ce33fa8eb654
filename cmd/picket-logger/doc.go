// Picket-logger stands between one container and its log file. A containerd shim starts it (log URI
// binary:///path/picket-logger?path=...&lock=...), so it outlives the agent. It reads the container's stdout on descriptor 3 and
// its stderr on 4, writes one byte to 5 and closes it when ready, and ends at end of file. Arguments are key and value, any order:
//
//	path       the log file, which is made with its directory
//	max-size   bytes; the file is rotated before it grows over that (10485760)
//	max-files  files kept in all, the current one included (5)
//	lock       the file that shows that this process lives; "" for none
//
// # Format
//
// The file is in CRI format, "2026-01-02T15:04:05.000000001Z stdout F text", as containerd's CRI plugin writes it: lines over
// 16 KiB are cut into records tagged P, the last of them F; a "\r" before the "\n" goes; what follows the last newline at end of
// file is written as P. Times grow with every line, so that a shipper that drops equal lines of one instant drops none.
//
// # Rotation
//
// A full file is renamed as the kubelet does, 0.log to 0.log.20260102-150405 (UTC), without a moment when lines are lost. Names
// grow strictly: when the second is taken, or the clock went back, the next free second is used. All rotated files but the newest
// are compressed to 0.log.20260102-150405.gz, keeping the time of their last line as modification time; a child process does it,
// at the lowest priority. A line of several records is not spread over two files, unless it is longer than an eighth of max-size.
//
// # When the log cannot be written
//
// On a full or read-only disk the container is never blocked: its lines are read, dropped and counted, and a line of our own
// says how many there were as soon as writing works again. What a failed write left behind is cut off; what a killed logger left
// behind is ended with a newline, or cut off where not even the record's head is whole. A log that was removed is made again.
//
// # Life
//
// Before it says that it is ready, the logger takes an exclusive flock(2) on the lock file and writes its pid into it. The kernel
// releases the lock when the process is gone, however it went: lock free and container running means that the log is lost for
// good, for nobody can attach to the pipes again. SIGTERM is what the shim sends when the container is deleted: the logger reads
// on until end of file, at most 2 seconds, as a stray process may keep the pipes open. SIGINT and SIGHUP are ignored.
//
// # Reaper
//
// "picket-logger --pause" is something else: PID 1 of a pod's shared process namespace. It reaps orphans until SIGTERM or SIGINT.
package main
