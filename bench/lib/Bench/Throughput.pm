# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Requests per second, CPU, latency and memory: sizes of answers, and slow backends.
package Bench::Throughput;
use strict;
use warnings;
use Bench::Backend;
use Bench::Load;
use Bench::Peers;
use Bench::Rounds;

our @figures = qw(rps cpu_us p50_ms p99_ms pss_kib);
our @columns = (['rps', 'req/s', 0], ['cpu_us', 'CPU us/req', 1], ['p50_ms', 'p50 ms', 2],
                ['p99_ms', 'p99 ms', 2], ['pss_kib', 'memory MiB', 1, 1024]);

my $large = 1 << 20;    # from here on requests are counted by bytes

# A workload: name; load, warm_up, first_warm_up => sub ($setup, $peer) giving the command of the
# measured load (which also gets what the one before it has measured), of the one before it and of
# the one after a start; path and size of an answer; backend; profile of the peers; fresh: a new
# instance for each measurement, as what one leaves behind (requests still running) would spoil the
# next.
sub sizes {
    my ($options) = @_;
    my @workloads;
    for my $tls (@{$options->{tls}}) {
        for my $size (@{$options->{sizes}}) {
            for my $connections (@{$options->{conns}}) {
                # Time enough for each connection to get about one whole answer.
                my $seconds = $options->{seconds} * ($size * $connections > 2**32 ? 4 : 1);
                my %load = (path => "/$size", connections => $connections, tls => $tls);
                push @workloads, {
                    name => sprintf('%s %s x%d', $tls ? 'TLS' : 'plain', unit($size), $connections),
                    backend => 'files', path => "/$size", size => $size,
                    profile => { connections => $connections },
                    # httpd starts its children one second after the other.
                    first_warm_up => wrk(%load, seconds => 4),
                    warm_up => wrk(%load, seconds => 1),
                    load => wrk(%load, seconds => $seconds),
                };
            }
        }
    }
    return @workloads;
}

sub slow {
    my ($options) = @_;
    my $seconds = $options->{seconds};
    my $rounds = $options->{quick} ? 1 : 3;
    my %common = (backend => 'slow', path => '/delay/0', size => 37, fresh => 1);
    my %short = (path => '/delay/5', connections => 64);
    my %long = (path => '/delay/2000', connections => 2000);
    return (
        { %common, name => 'slow 5 ms x64', profile => { connections => 64, threads => 16 },
          warm_up => load(%short, requests => 30, limit => 3),
          load => load(%short, requests => 150 * $seconds, limit => 8 * $seconds) },
        { %common, name => 'slow 2 s x2000', profile => { connections => 2000, threads => 16 },
          load => load(%long, requests => $rounds, limit => 4 * $rounds) },
    );
}

sub load {
    my %load = @_;
    return sub {
        my ($setup, $peer) = @_;
        return Bench::Load::load_command($setup, %load, port => $peer->{port});
    };
}

sub wrk {
    my %load = @_;
    return sub {
        my ($setup, $peer) = @_;
        return Bench::Load::wrk_command($setup, %load,
                                        port => $peer->{$load{tls} ? 'tls' : 'port'});
    };
}

sub warm_up {
    my ($setup, $peer, $load) = @_;
    return $load ? Bench::Load::run([$load->($setup, $peer)], 60, sub {}) : undef;
}

sub unit {
    my ($bytes) = @_;
    return $bytes % 2**20 == 0 ? $bytes / 2**20 . ' MiB'
         : $bytes % 2**10 == 0 ? $bytes / 2**10 . ' KiB' : "$bytes B";
}

# Measures all workloads: the list of results.
sub run {
    my ($setup, $options, @workloads) = @_;
    my @results;
    for my $workload (@workloads) {
        my $backend = $setup->{$workload->{backend}}{port};
        my %kept;
        my $start = sub {
            my $peer = Bench::Peers::start($_[0], $setup, $backend, $workload->{profile});
            Bench::Load::probe($peer, @$workload{qw(path size)});
            warm_up($setup, $peer, $workload->{first_warm_up});
            return $peer;
        };
        my $bytes = $workload->{size} >= $large ? $workload->{size} : undef;
        push @results, Bench::Rounds::run($options, $workload->{name}, sub {
            my ($name) = @_;
            my $peer = $kept{$name} // $start->($name);
            my $warmed = warm_up($setup, $peer, $workload->{warm_up});
            my @command = $workload->{load}->($setup, $peer, $warmed);
            my $figures = Bench::Load::measure($peer, \@command, $bytes);
            $workload->{fresh} ? Bench::Peers::stop($peer) : ($kept{$name} = $peer);
            return $figures;
        });
        Bench::Peers::stop($_) for values %kept;
    }
    return @results;
}

1;
