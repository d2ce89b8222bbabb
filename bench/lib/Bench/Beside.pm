# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# How long new connections wait for their answer while requests that only the pipeline can serve
# sleep in a slow handler of the same child.
package Bench::Beside;
use strict;
use warnings;
use Bench::Load;
use Bench::Rounds;

our @figures = qw(p50_ms p99_ms max_ms completed slow_answered);
our @columns = (['completed', 'answered', 0], ['p50_ms', 'p50 ms', 2], ['p99_ms', 'p99 ms', 2],
                ['max_ms', 'max ms', 2], ['slow_answered', 'slow answered', 0]);

my $slow_path = '/delay/2000';    # the backend answers after 2 s, whatever follows
my $slow_requests = 64;

# Where the slow requests sleep. Parked: our handler, which gives its thread back; handler: a
# foreign one that keeps it. First: the slow request is the connection's first one, so that the
# engine never had it before.
my @workloads = (
    { name => 'alone', path => '/none', slow => 0, first => 0 },
    { name => '64 parked', path => "$slow_path/parked", slow => $slow_requests, first => 0 },
    { name => '64 parked, first', path => "$slow_path/parked", slow => $slow_requests, first => 1 },
    { name => '64 in a handler', path => "$slow_path/handler", slow => $slow_requests, first => 0 },
    { name => '64 in a handler, first', path => "$slow_path/handler", slow => $slow_requests,
      first => 1 },
);

sub workloads { map { $_->{name} } @workloads }

sub run {
    my ($setup, $options) = @_;
    my $profile = { threads => 16, connections => 1000, pipeline => $slow_path };
    return map {
        my $workload = $_;
        Bench::Rounds::run_fresh($setup, $options, $workload->{name}, $profile,
                                 sub { one_round($setup, $options, $workload, @_) });
    } @workloads;
}

sub one_round {
    my ($setup, $options, $workload, $peer) = @_;
    Bench::Load::probe($peer, '/delay/0', 37);
    my $command = sub {
        my ($path, $slow, $seconds) = @_;
        return ["$setup->{bin}/beside", $peer->{port}, '/delay/0', $path, $slow, $seconds,
                $workload->{first}];
    };
    Bench::Load::run($command->('/none', 0, 1), 60, sub {});
    return Bench::Load::measure($peer, $command->(@$workload{qw(path slow)},
                                                  $options->{seconds}));
}

1;
