package main

import (
	"context"
	"time"
)

// large measures one upload of 1 GiB in one PATCH: how fast, at what cost of CPU and memory.
func large(ctx context.Context, b *bench) error {
	rate, cpu, most := figures{}, figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo, stock, tuned, unhashed, bare}, b.S3.Endpoint(), func(sv *server) error {
		var before float64
		var err error
		if sv.process != nil {
			if before, err = cpuSeconds(sv.process.Pid()); err != nil {
				return err
			}
		}
		start := time.Now()
		if err := sv.upload(ctx, gib); err != nil {
			return err
		}
		rate.add(sv.peer, gib/mb/time.Since(start).Seconds())
		if sv.process == nil {
			return nil
		}
		after, err := cpuSeconds(sv.process.Pid())
		if err != nil {
			return err
		}
		cpu.add(sv.peer, after-before)
		bytes, err := peak(sv.process.Pid())
		most.add(sv.peer, bytes/mib)
		return err
	})
	if err != nil {
		return err
	}
	b.spread("MB/s", rate)
	b.spread("CPU seconds", cpu)
	b.row("MB/s, 1 GiB in one PATCH", rate, "%.0f", "", true)
	ratio := rate.over(bare)
	b.row("the same, against the bare client", ratio, "%.2fx", "≥ 0.9", ratio.of(tramo) >= 0.9)
	b.row("CPU seconds of the server, 1 GiB", cpu, "%.1f", "≤ 2.2", cpu.of(tramo) <= 2.2)
	b.row("MiB of memory at most, 1 GiB", most, "%.0f", "", true)
	return nil
}
