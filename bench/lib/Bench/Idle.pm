# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Thousands of idle keep-alive connections: how many there are, and what each takes of memory. Plain
# httpd is the MPM's own share of what our lane takes.
package Bench::Idle;
use strict;
use warnings;
use Bench::Crowd;
use Bench::Load;
use Bench::Rounds;
use Time::HiRes qw(sleep);

our @figures = qw(pss_kib_connection rss_kib_connection private_kib_connection idle alive);
our @columns = (['idle', 'idle', 0], ['alive', 'alive', 0],
                ['pss_kib_connection', 'PSS KiB each', 2], ['rss_kib_connection', 'RSS each', 2],
                ['private_kib_connection', 'private each', 2]);

my $path = '/delay/0';

sub workload { "$_[0]{idle} idle connections" }

sub run {
    my ($setup, $options) = @_;
    my $profile = { threads => 16, connections => $options->{idle} + 100, idle_seconds => 3600,
                    path => $path };
    return Bench::Rounds::run_fresh($setup, $options, workload($options), $profile,
                                    sub { one_round($setup, $options, @_) });
}

sub one_round {
    my ($setup, $options, $peer) = @_;
    my $process = $peer->{process};
    Bench::Load::probe($peer, $path, 37);
    # First touches of code and of the allocator are not what a connection takes.
    Bench::Load::run([Bench::Load::load_command($setup, port => $peer->{port}, path => $path,
                                                connections => 16, requests => 50, limit => 10)],
                     60, sub {});
    sleep 0.5;
    my $before = $process->memory;

    my $crowd = Bench::Crowd->gather("$setup->{bin}/idle", $peer->{port}, $path,
                                     $options->{idle});
    # What was needed for the last requests only goes back by itself.
    sleep 2;
    my $with = $process->memory;
    my ($idle, $alive) = @{$crowd->again}{qw(idle alive)};

    # Fewer than wanted is a figure, not an error: the machine's limits may not allow more, and the
    # MPM closes idle ones when its workers are busy.
    return {
        idle => $idle, alive => $alive,
        errors => { none => $idle ? 0 : 1 }, error_count => $idle ? 0 : 1,
        map { ("${_}_kib_connection" => $idle ? ($with->{$_} - $before->{$_}) / $idle : undef) }
            qw(pss rss private),
    };
}

1;
