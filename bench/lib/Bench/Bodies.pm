# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A large download to a slow reader and a large upload to a slow backend: how far memory grows.
package Bench::Bodies;
use strict;
use warnings;
use Bench::Load;
use Bench::Rounds;

our @figures = qw(peak_growth_kib rss_growth_kib private_growth_kib mib_per_second);
our @columns = (['peak_growth_kib', 'peak RSS +KiB', 0], ['rss_growth_kib', 'RSS +KiB', 0],
                ['private_growth_kib', 'private +KiB', 0], ['mib_per_second', 'MiB/s', 1]);

sub workloads {
    my ($options) = @_;
    return map { "$_ $options->{mib} MiB at $options->{rate} MiB/s" } qw(download upload);
}

sub run {
    my ($setup, $options) = @_;
    my $profile = { threads => 16, connections => 64 };
    return map {
        my $download = /^download/;
        Bench::Rounds::run_fresh($setup, $options, $_, $profile,
                                 sub { one_round($setup, $options, $download, @_) });
    } workloads($options);
}

# Both directions: the command for a body of so many bytes at so many bytes a second.
sub command {
    my ($setup, $peer, $download, $bytes, $rate) = @_;
    return ["$setup->{bin}/body_client", 'download', $peer->{port}, "/bytes/$bytes", $bytes, $rate]
        if $download;
    return ["$setup->{bin}/body_client", 'upload', $peer->{port}, "/sink/$rate", $bytes];
}

sub one_round {
    my ($setup, $options, $download, $peer) = @_;
    my $process = $peer->{process};
    my $rate = $options->{rate} << 20;

    # First touches of code and of the allocator are not what grows with a body.
    for (1 .. 8) {
        Bench::Load::probe($peer, '/delay/0', 37);
        Bench::Load::run(command($setup, $peer, $download, 1 << 20, $rate), 60, sub {});
    }
    $process->reset_peaks;
    my $before = $process->memory;
    my %start = $process->peaks;
    my $private = 0;
    my $sent = Bench::Load::run(
        command($setup, $peer, $download, $options->{mib} << 20, $rate), 0.25, sub {
            my $now = $process->memory->{private} - $before->{private};
            $private = $now if $now > $private;
        });
    my %end = $process->peaks;
    my $peak = 0;
    $peak += $end{$_} - ($start{$_} // 0) for keys %end;

    return {
        peak_growth_kib => $peak,
        rss_growth_kib => $process->memory->{rss} - $before->{rss},
        private_growth_kib => $private,
        seconds => $sent->{seconds}, bytes => $sent->{bytes}, status => $sent->{status},
        mib_per_second => $sent->{bytes} / 2**20 / $sent->{seconds},
        errors => { incomplete => $sent->{ok} ? 0 : 1 },
        error_count => $sent->{ok} ? 0 : 1,
    };
}

1;
