# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Runs the load generators, and measures a peer while one runs.
package Bench::Load;
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use List::Util qw(sum0);
use Time::HiRes qw(time);
use Bench::Programs;

# wrk: %args are port, tls (whether port is a TLS port), path, connections, seconds.
sub wrk_command {
    my ($setup, %args) = @_;
    my $threads = $args{connections} < 2 ? 1 : 2;
    my $scheme = $args{tls} ? 'https' : 'http';
    return (Bench::Programs::need('wrk'), '-t', $threads, '-c', $args{connections},
            '-d', "$args{seconds}s", '--timeout', '30s', '-s', "$setup->{source}/wrk.lua",
            "$scheme://127.0.0.1:$args{port}$args{path}");
}

# load: %args are port, path, connections, requests (per connection), limit (seconds).
sub load_command {
    my ($setup, %args) = @_;
    return ("$setup->{bin}/load", @args{qw(port path connections requests limit)});
}

# h2load, with HTTP/2 over TLS only: %args are port, path, connections, streams (on each), and
# either seconds, only to warm up, as h2load is silent about connections that fail then; or requests
# (of all together), with a limit (seconds) where they need not all be answered. One cipher: left to
# themselves some servers choose a dearer one than others.
sub h2load_command {
    my (%args) = @_;
    my @extent = $args{seconds} ? ('-D', $args{seconds})
               : ('-n', $args{requests}, $args{limit} ? ('-T', $args{limit}) : ('-N', 30));
    return (Bench::Programs::need('h2load'), '-t', 1, '-c', $args{connections},
            '-m', $args{streams}, @extent, '--npn-list=h2',
            '--tls13-ciphers=TLS_AES_128_GCM_SHA256',
            "https://127.0.0.1:$args{port}$args{path}");
}

# steady, with HTTP/2 over TLS: %args are port, path, connections, rate (requests a second) and
# seconds.
sub steady_command {
    my ($setup, %args) = @_;
    return ("$setup->{bin}/steady", @args{qw(port path connections rate seconds)});
}

# Runs a command whose output ends with a JSON line, or h2load; returns what it has measured. Calls
# $while every $interval seconds meanwhile.
sub run {
    my ($command, $interval, $while) = @_;
    open(my $out, '-|', @$command) or die "bench: $command->[0]: $!\n";
    my $select = IO::Select->new($out);
    my $text = '';
    my $next = time + $interval;
    while (1) {
        my $left = $next - time;
        if ($select->can_read($left > 0 ? $left : 0)) {
            sysread($out, $text, 65536, length $text) or last;
        } elsif (time >= $next) {
            $while->();
            $next = time + $interval;
        }
    }
    close $out or die "bench: @$command has failed: $text\n";
    return decode_json($1) if $text =~ /^(\{.*\})\s*\z/m;
    return h2load_result($text, $command) // die "bench: @$command printed no result: $text\n";
}

my %unit_seconds = (us => 1e-6, ms => 1e-3, s => 1, m => 60, h => 3600);

# What h2load has printed, like a result of the others; undef where it is something else. What has
# not been answered at the time limit, or has not even been sent then, is unfinished.
sub h2load_result {
    my ($text, $command) = @_;
    my ($time, $unit, $rps) = $text =~ m{^finished in ([\d.]+)([a-z]+), ([\d.]+) req/s}m or return;
    my ($requests) = $text =~ /^requests: (.*)/m or return;
    my %count = reverse $requests =~ /(\d+) ([a-z]+)/g;
    my ($bytes) = $text =~ /^traffic: .*\((\d+)\) data/m or return;
    my ($mean, $mean_unit) = $text =~ /^time for request:(?:\s+[\d.]+[a-z]+){2}\s+([\d.]+)([a-z]+)/m
        or return;
    # The failed ones include the errored ones, those with all that a broken connection had to do.
    my $limit_came = $count{timeout} && grep { $_ eq '-T' } @$command;
    return {
        completed => 0 + $count{succeeded}, unfinished => $limit_came ? 0 + $count{errored} : 0,
        bytes => 0 + $bytes, rps => 0 + $rps, seconds => $time * $unit_seconds{$unit},
        mean_ms => $mean * $unit_seconds{$mean_unit} * 1e3,
        errors => { status => $count{failed} - $count{errored},
                    broken => $limit_came ? 0 : 0 + $count{errored} },
    };
}

# Runs a load against a peer: its figures, and the peer's CPU and memory under it.
# $bytes: size of a response where answers are large (see below), else undef.
sub measure {
    my ($peer, $command, $bytes) = @_;
    my $process = $peer->{process};
    my %memory = (rss => 0, pss => 0, private => 0);
    my $sample = sub {
        my $seen = $process->memory;
        for my $kind (keys %memory) {
            $memory{$kind} = $seen->{$kind} if $seen->{$kind} > $memory{$kind};
        }
    };
    my $cpu = $process->cpu;
    my $result = run($command, 0.7, $sample);
    $cpu = $process->cpu - $cpu;

    # Large answers that are under way when wrk stops have cost as much as their bytes: count
    # requests by bytes, or the tail of 1000 connections would distort every figure.
    my $requests = $bytes ? $result->{bytes} / $bytes : $result->{completed};
    $result->{requests} = $requests;
    $result->{rps} //= $requests / $result->{seconds};
    $result->{cpu_seconds} = $cpu;
    $result->{cpu_us} = $requests > 0 ? $cpu * 1e6 / $requests : undef;
    $result->{error_count} = error_count($result);
    $result->{"${_}_kib"} = $memory{$_} for keys %memory;
    delete @$result{qw(p50_ms p99_ms mean_ms)} if $result->{completed} == 0;
    return $result;
}

# What makes a measurement invalid: any error. A connection that the server closes when it is idle,
# and just then gets a request, is none: clients repeat it, and the event MPM does this to some
# whenever all its workers are busy. Our load can tell; wrk calls it a read error, the same as an
# answer that broke off, so up to one in a hundred requests is taken for a closed connection.
sub error_count {
    my ($result) = @_;
    my $errors = $result->{errors};
    $result->{closed} = delete $errors->{read}
        if defined $errors->{read} && $errors->{read} <= $result->{completed} / 100;
    return sum0(values %$errors);
}

# One plain request: dies unless it is answered with 200 and $size bytes.
sub probe {
    my ($peer, $path, $size) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $peer->{port},
                                       Timeout => 10) or die "bench: $peer->{name}: $!\n";
    print $socket "GET $path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    local $/;
    my $answer = readline($socket) // '';
    my ($head, $body) = split /\r\n\r\n/, $answer, 2;
    return if ($head // '') =~ m{^HTTP/1\.1 200 } && length($body // '') == $size;
    die "bench: $peer->{name} does not answer $path with $size bytes, but with\n"
        . substr($answer, 0, 300) . "\n";
}

1;
