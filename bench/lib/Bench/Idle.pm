# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Thousands of idle keep-alive connections: how many there are, and what each takes of memory. Plain
# httpd is the MPM's own share of what our lane takes. With HTTP/2 (over TLS) also what a stream
# takes that waits for the backend.
package Bench::Idle;
use strict;
use warnings;
use Bench::Crowd;
use Bench::Load;
use Bench::Rounds;
use Time::HiRes qw(sleep);

our @figures = qw(pss_kib_each rss_kib_each private_kib_each idle alive);
our @columns = (['idle', 'idle', 0], ['alive', 'alive', 0], ['pss_kib_each', 'PSS KiB each', 2],
                ['rss_kib_each', 'RSS each', 2], ['private_kib_each', 'private each', 2]);

my $path = '/delay/0';
my $waiting_path = '/delay/3600000';    # is not answered before the end

# Connections with so many waiting streams on each.
my %waiting = (connections => 40, streams => 50);
my $waiting_streams = $waiting{connections} * $waiting{streams};

sub workloads {
    my ($options) = @_;
    return $options->{http2}
        ? ("$options->{idle} idle HTTP/2 connections", "$waiting_streams waiting streams")
        : "$options->{idle} idle connections";
}

sub run {
    my ($setup, $options) = @_;
    my @rounds = ([\&idle_connections, $options->{idle}], [\&waiting_streams, $waiting_streams]);
    return map {
        my ($round, $most) = @{shift @rounds};
        my $profile = { threads => 16, connections => $most + 100, idle_seconds => 3600,
                        path => $path, http2 => $options->{http2} };
        Bench::Rounds::run_fresh($setup, $options, $_, $profile, sub {
            my ($peer) = @_;
            warm_up($setup, $options, $peer);
            return $round->($setup, $options, $peer);
        });
    } workloads($options);
}

# First touches of code and of the allocator are not what a connection takes.
sub warm_up {
    my ($setup, $options, $peer) = @_;
    my %load = (path => $path, limit => 10);
    Bench::Load::probe($peer, $path, 37);
    Bench::Load::run([Bench::Load::load_command($setup, %load, port => $peer->{port},
                                                connections => 16, requests => 50)], 60, sub {});
    Bench::Load::run([Bench::Load::h2load_command(%load, port => $peer->{tls}, connections => 16,
                                                  streams => 8, requests => 800)], 60, sub {})
        if $options->{http2};
    sleep 0.5;
}

sub idle_connections {
    my ($setup, $options, $peer) = @_;
    my @command = $options->{http2} ? ("$setup->{bin}/idle_http2", $peer->{tls})
                                    : ("$setup->{bin}/idle", $peer->{port});
    my ($crowd, $growth) = gather($peer, @command, $path, $options->{idle});
    my ($idle, $alive) = @{$crowd->again}{qw(idle alive)};
    return figures($idle, $alive, $growth);
}

# Not counting what the connections take that the streams are on: as many without streams do.
sub waiting_streams {
    my ($setup, $options, $peer) = @_;
    my @command = ("$setup->{bin}/idle_http2", $peer->{tls}, $path, $waiting{connections});
    my ($without, $connections) = gather($peer, @command);
    my ($with, $growth) = gather($peer, @command, $waiting{streams}, $waiting_path);
    $growth->{$_} -= $connections->{$_} for keys %$growth;
    my ($idle, $alive) = map { $_ * $waiting{streams} } @{$with->again}{qw(idle alive)};
    $without->again;
    return figures($idle, $alive, $growth);
}

# A crowd of connections, and what the peer has grown by.
sub gather {
    my ($peer, @command) = @_;
    my $before = $peer->{process}->memory;
    my $crowd = Bench::Crowd->gather(@command);
    # What was needed for the last requests only goes back by itself.
    sleep 2;
    my $with = $peer->{process}->memory;
    return ($crowd, { map { $_ => $with->{$_} - $before->{$_} } keys %$with });
}

# Fewer than wanted is a figure, not an error: the machine's limits may not allow more, and the MPM
# closes idle ones when its workers are busy.
sub figures {
    my ($idle, $alive, $growth) = @_;
    return {
        idle => $idle, alive => $alive,
        errors => { none => $idle ? 0 : 1 }, error_count => $idle ? 0 : 1,
        map { ("${_}_kib_each" => $idle ? $growth->{$_} / $idle : undef) } keys %$growth,
    };
}

1;
