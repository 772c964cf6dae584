package smtpclient

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mtadelivery/delivery/internal/smtptest"
)

// benchProcess is the environment variable that makes of the test binary what a benchmark needs beside
// itself: "sink", or a scene of BenchmarkRoundTrips.
const benchProcess = "SMTPCLIENT_BENCH_PROCESS"

// TestBenchProcess is that other process.
func TestBenchProcess(t *testing.T) {
	switch what := os.Getenv(benchProcess); {
	case what == "":
		t.Skip("benchmarks run this, in a process of its own")
	case what == "sink":
		serveSink(t)
	default:
		sc, err := sceneOf(what)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("took %d\n", sc.measure(t))
	}
}

// serveSink says where the sink listens, and for each line that it reads what has been spent and taken.
// It ends with its input.
func serveSink(t *testing.T) {
	sink := &smtptest.Sink{CountOnly: true}
	address, err := sink.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	fmt.Printf("sink %s\n", address)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		messages, _, _ := sink.Counts()
		fmt.Printf("usage %d %d\n", cpuTime(), messages)
	}
}

func benchCommand(b *testing.B, what string, limit time.Duration) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestBenchProcess$", "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), benchProcess+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// sinkProcess is a sink in a process of its own, so that its work is not counted as the client's.
type sinkProcess struct {
	address string
	in      io.WriteCloser
	out     *bufio.Scanner
}

// startSink starts one, which ends with the benchmark.
func startSink(b *testing.B) *sinkProcess {
	if *pin {
		if err := pinToOneCPU(); err != nil {
			b.Fatal("-pin: ", err)
		}
	}
	cmd := benchCommand(b, "sink", time.Hour)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	p := &sinkProcess{in: in, out: bufio.NewScanner(out)}
	b.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			b.Error("the sink: ", err)
		}
	})
	if err := p.expect("sink %s", &p.address); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *sinkProcess) expect(format string, values ...any) error {
	word, _, _ := strings.Cut(format, " ")
	for p.out.Scan() {
		if line := p.out.Text(); strings.HasPrefix(line, word+" ") {
			_, err := fmt.Sscanf(line, format, values...)
			return err
		}
	}
	return fmt.Errorf("the sink's process has ended: %w", io.ErrUnexpectedEOF)
}

// usage says what CPU time the sink has used, and how many messages it has taken.
func (p *sinkProcess) usage() (cpu time.Duration, messages int64, err error) {
	if _, err := io.WriteString(p.in, "usage\n"); err != nil {
		return 0, 0, err
	}
	err = p.expect("usage %d %d", &cpu, &messages)
	return cpu, messages, err
}
