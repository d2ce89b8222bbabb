# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# HTTP/2 clients over TLS: sizes of answers on so many connections with so many streams each, and
# thousands of streams that wait for a slow backend.
package Bench::Http2;
use strict;
use warnings;
use Bench::Load;
use Bench::Peers;
use Bench::Throughput;

our @figures = qw(rps cpu_us mean_ms pss_kib);
our @columns = (['rps', 'req/s', 0], ['cpu_us', 'CPU us/req', 1], ['mean_ms', 'mean ms', 2],
                ['pss_kib', 'memory MiB', 1, 1024]);

# As many streams as every peer allows on a connection; the answer to each takes two seconds. One
# request for each: h2load's time limit starts anew whenever it sends one more on a connection.
my %slow = (path => '/delay/2000', connections => 20, streams => 100);

# What these are: see Bench::Throughput.
sub workloads {
    my ($options) = @_;
    my @workloads;
    for my $size (@{$options->{sizes}}) {
        for my $shape (@{$options->{streams}}) {
            my ($connections, $streams) = @$shape;
            my %load = (path => "/$size", connections => $connections, streams => $streams);
            push @workloads, {
                name => Bench::Throughput::unit($size) . " ${connections}x$streams",
                backend => 'files', path => "/$size", size => $size,
                profile => { http2 => 1, connections => $connections * $streams },
                # httpd starts its children one second after the other.
                first_warm_up => h2load(%load, seconds => 4),
                warm_up => h2load(%load, seconds => 1),
                load => h2load(%load, as_warmed_up => $options->{seconds}),
            };
        }
    }
    my $streams = $slow{connections} * $slow{streams};
    return @workloads, {
        name => "slow 2 s $slow{connections}x$slow{streams}", backend => 'slow',
        path => '/delay/0', size => 37, fresh => 1,
        profile => { http2 => 1, connections => $streams, threads => 16 },
        load => h2load(%slow, requests => $streams, limit => 8),
    };
}

# As Bench::Load::h2load_command. as_warmed_up: as many requests as take so many seconds, if they
# are answered as fast as when it was warmed up.
sub h2load {
    my %load = @_;
    return sub {
        my ($setup, $peer, $warmed) = @_;
        if ($load{as_warmed_up}) {
            my $least = $load{connections} * $load{streams};
            my $requests = int($warmed->{rps} * $load{as_warmed_up});
            $load{requests} = $requests > $least ? $requests : $least;
        }
        return Bench::Load::h2load_command(%load, port => $peer->{tls});
    };
}

1;
