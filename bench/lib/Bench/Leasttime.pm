# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What a slow member does to the latency of a pool: with leasttime, with roundrobin, and in a pool
# that doesn't have it.
package Bench::Leasttime;
use strict;
use warnings;
use Bench::Backend;
use Bench::Load;
use Bench::Peers;
use Bench::Rounds;

our @figures = qw(rps p50_ms p99_ms);
our @columns = (['rps', 'req/s', 0], ['p50_ms', 'p50 ms', 2], ['p99_ms', 'p99 ms', 2]);

use constant {
    USUAL => 5,         # milliseconds that a member takes
    SLOW => 50,
    PACE => 180,        # requests a second of each connection, of 200 that are possible
};

# By peer: the method, and how long each member takes.
my %pool = (
    leasttime => ['leasttime', SLOW, (USUAL) x 3],
    healthy => ['leasttime', (USUAL) x 3],
    roundrobin => ['roundrobin', SLOW, (USUAL) x 3],
);

sub load { my ($connections) = @_; return "one of four slow, x$connections" }

sub workloads { my ($options) = @_; return map { load($_) } @{$options->{conns}} }

# Lines of the pool; each member is a backend of its own.
sub pool {
    my ($name, $ports) = @_;
    my ($method, @times) = @{$pool{$name}};
    return ["RProxyMethod $method",
            map { "RProxyMember http://127.0.0.1:$ports->[$_]/delay/$times[$_]" } 0 .. $#times];
}

sub run {
    my ($setup, $options) = @_;
    my @ports = map {
        mkdir "$setup->{dir}/member$_" or die "bench: $setup->{dir}/member$_: $!\n";
        Bench::Backend::slow("$setup->{dir}/member$_", $setup->{bin})->{port}
    } 1 .. 4;
    return map {
        my $connections = $_;
        Bench::Rounds::run($options, load($connections), sub {
            my ($name) = @_;
            my $peer = Bench::Peers::start($name, $setup, undef,
                { connections => $connections, pool => pool($name, \@ports) });
            my $figures = one_round($setup, $options, $connections, $peer);
            Bench::Peers::stop($peer);
            return $figures;
        });
    } @{$options->{conns}};
}

# A third as long before it: the method learns, httpd starts its children.
sub one_round {
    my ($setup, $options, $connections, $peer) = @_;
    my $command = sub {
        my ($seconds) = @_;
        return [Bench::Load::load_command($setup, port => $peer->{port}, path => '/',
            connections => $connections, requests => int(PACE * $seconds),
            limit => 10 + 10 * $seconds)];
    };
    Bench::Load::probe($peer, '/', 37);
    Bench::Load::run($command->($options->{seconds} / 3), 60, sub {});
    return Bench::Load::measure($peer, $command->($options->{seconds}));
}

1;
