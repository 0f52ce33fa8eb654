package runtimetest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// StandInPath is the entry point of StandIn's images.
const StandInPath = "/standin"

// StandIn is an image that can take the place of any other: every program in it is the same one (package standin), which runs, listens,
// and ends when it is told to, whatever its command line says.
type StandIn struct {
	// Programs are the names or absolute paths that containers start; a name is found in $PATH.
	Programs []string
	// Exec are command lines that end at once with 0, those of probes and hooks; their programs need not be listed.
	Exec [][]string
	// Listen are the ports that are served, if no other container of the pod does: "http", "https" or "udp".
	Listen map[int32]string
}

// StandInProgram builds the program of StandIn's images.
func StandInProgram() ([]byte, error) { return buildProgram("standin") }

// buildProgram builds a static program of a package beside this one.
func buildProgram(name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, name)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/picketd/picket/runtime/runtimetest/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w\n%s", name, err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return program, nil
}

// Image makes the image. program is StandInProgram's.
func (s StandIn) Image(program []byte) (v1.Image, error) {
	orders, err := json.Marshal(map[string]any{"exec": s.Exec, "listen": s.Listen})
	if err != nil {
		return nil, fmt.Errorf("cannot write the stand-in's orders: %w", err)
	}
	programs := slices.Clone(s.Programs)
	for _, command := range s.Exec {
		programs = append(programs, command[0])
	}
	links := map[string]File{"/standin.json": {Content: orders}}
	for _, program := range programs {
		if !path.IsAbs(program) {
			program = path.Join("/usr/local/bin", program)
		}
		links[program] = File{Link: StandInPath}
	}
	return Image{Config: v1.Config{Entrypoint: []string{StandInPath}}, Base: map[string]File{StandInPath: {Content: program, Mode: 0o755}}, Files: links}.Build()
}
