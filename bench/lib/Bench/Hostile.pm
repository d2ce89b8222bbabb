# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What hostile clients of HTTP/2 do to good ones: a steady load, first alone, then beside attacks of
# all kinds, with the latency of both and the memory of the proxy.
package Bench::Hostile;
use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use List::Util qw(max sum0);
use Bench::Load;
use Bench::Machine;
use Bench::Process;
use Bench::Report;
use Bench::Rounds;
use Time::HiRes qw(time);

our @figures = qw(p50_alone p50_beside p99_alone p99_beside p99_ratio rss_begin rss_tenth rss_most
                  rss_end);
our @columns = (['p50_alone', 'p50 ms alone', 2], ['p50_beside', 'p50 beside', 2],
                ['p99_alone', 'p99 ms alone', 2], ['p99_beside', 'p99 beside', 2],
                ['p99_ratio', 'p99 ratio', 2],
                (map { ["rss_$_", "MiB $_", 1, 1024] } qw(begin tenth most end)));

my $path = '/delay/0';
my %load = (path => $path, connections => 8, rate => 500);

sub workloads {
    my ($options) = @_;
    return "hostile $options->{minutes} min";
}

# Runs what another machine would do at once: beside hostile clients it would wait for its CPU.
my @at_once;

sub run {
    my ($setup, $options) = @_;
    my $backend = $setup->{slow}{process};
    if (system("chrt -r -p 1 $backend->{pid} 2>/dev/null") == 0) {
        @at_once = qw(chrt -r 1);
    }
    else {
        warn "bench: the good clients and the backend get no real-time priority here: their "
            . "latency counts what they wait for a CPU themselves; run as root\n";
    }
    keep_to('others', $$, $backend->tree);
    # As many as there are streams: those that wait have a connection to the backend each.
    my $profile = { http2 => 1, exposed => 1, connections => 3000, threads => 64 };
    return Bench::Rounds::run_fresh($setup, $options, workloads($options), $profile,
                                    sub { one_round($setup, $options, @_) });
}

sub one_round {
    my ($setup, $options, $peer) = @_;
    my $process = $peer->{process};
    keep_to('proxy', $process->tree);
    Bench::Load::probe($peer, $path, 37);
    steady($setup, $peer, 5);
    my @alone = alone($setup, $options, $peer);

    my $children = children($process);
    my $before = $process->memory->{rss};
    my $attackers = Bench::Process->start(
        # Their CPU time would be another machine's.
        command => ['nice', '-n', 19, "$setup->{bin}/hostile", $peer->{tls}, $path, '/delay/1000',
                    $options->{attack} // ()],
        log => "$peer->{dir}/hostile.log");
    # They come one after the other: the good ones are connected before most of them.
    my ($cpu, $start) = ($attackers->cpu, time);
    my @beside = map { steady($setup, $peer, 60) } 1 .. $options->{minutes};
    $cpu = ($attackers->cpu - $cpu) / (time - $start);
    $attackers->stop;
    my $counted = decode_json(Bench::Process::read_file("$peer->{dir}/hostile.log"));
    push @alone, alone($setup, $options, $peer) unless $options->{quick};

    my @rss = map { @{$_->{rss}} } @beside;
    my %errors = (alone => sum0(map { values %{$_->{errors}} } @alone),
                  beside => sum0(map { values %{$_->{errors}} } @beside),
                  children => children($process) eq $children ? 0 : 1);
    my %figures = (summary('alone', @alone), summary('beside', @beside));
    return {
        %figures,
        p99_ratio => $figures{p99_beside} / $figures{p99_alone},
        rss_begin => $before, rss_tenth => $rss[@rss / 10], rss_most => max(@rss),
        rss_end => $rss[-1], rss_samples => \@rss,
        cores => { attackers => $cpu, map { $_ => $figures{"cores_$_"} } qw(alone beside) },
        attacks => $counted, counters => counters($peer),
        good => { alone => \@alone, beside => \@beside },
        errors => \%errors, error_count => sum0(values %errors),
    };
}

# The good clients without hostile ones, minute by minute: before and behind those, for the machine
# may be in another mood by then.
sub alone {
    my ($setup, $options, $peer) = @_;
    return steady($setup, $peer, 20) if $options->{quick};
    my $minutes = max(1, int($options->{minutes} / 4));
    return map { steady($setup, $peer, 60) } 1 .. $minutes;
}

# The medians over the minutes, and the worst of all.
sub summary {
    my ($when, @minutes) = @_;
    my %figures = (cores => Bench::Report::median(map { $_->{cores} } @minutes),
                   max => max(map { $_->{max_ms} } @minutes));
    for my $name (qw(p50 p99 p999)) {
        $figures{$name} = Bench::Report::median(map { $_->{"${name}_ms"} } @minutes);
    }
    return map { ("${_}_$when" => $figures{$_}) } keys %figures;
}

# The proxy has half of the CPUs, all else the other half: as if they were two machines.
sub keep_to {
    my ($half, @pids) = @_;
    my $cores = Bench::Machine::cores();
    return if $cores < 2;
    my $middle = int($cores / 2);
    my $list = $half eq 'proxy' ? '0-' . ($middle - 1) : "$middle-" . ($cores - 1);
    for my $pid (@pids) {
        system("taskset -apc $list $pid >/dev/null") == 0
            or die "bench: taskset cannot keep process $pid to the CPUs $list\n";
    }
}

# The good clients for so many seconds: their figures, the memory of the proxy in each second, and
# how many cores it took.
sub steady {
    my ($setup, $peer, $seconds) = @_;
    my ($process, @rss) = ($peer->{process});
    my ($cpu, $start) = ($process->cpu, time);
    my $result = Bench::Load::run(
        [@at_once, Bench::Load::steady_command($setup, %load, port => $peer->{tls},
                                               seconds => $seconds)], 1,
        sub { push @rss, $process->memory->{rss} });
    $result->{cores} = ($process->cpu - $cpu) / (time - $start);
    $result->{rss} = \@rss;
    return $result;
}

# The processes of the proxy: none may end.
sub children {
    my ($process) = @_;
    return join ' ', sort { $a <=> $b } $process->tree;
}

# Connections that our module has ended for a reason, by the reason.
sub counters {
    my ($peer) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $peer->{status},
                                       Timeout => 10) or return {};
    print $socket "GET /?auto HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    local $/;
    my $page = readline($socket) // '';
    return { $page =~ /^RProxyHTTP2Ended-(\S+): (\d+)\r?$/mg };
}

# What the table has no room for: what came of each attack.
sub details {
    my ($results) = @_;
    for my $result (@$results) {
        my $cores = $result->{cores};
        printf "\n%s, round %d: cores used by the proxy %.3f alone, %.3f beside; by the hostile "
            . "clients %.3f; p99.9 %.2f and %.2f ms, most %.2f and %.2f ms\n",
            @$result{qw(peer round)}, @$cores{qw(alone beside attackers)},
            @$result{qw(p999_alone p999_beside max_alone max_beside)};
        printf "  %-28s%12s%12s%12s%12s%12s%12s\n", 'attack', 'connections', 'failed', 'actions',
            'ended', 'with calm', 'resets';
        for my $name (sort keys %{$result->{attacks}}) {
            printf "  %-28s%12d%12d%12d%12d%12d%12d\n", $name,
                @{$result->{attacks}{$name}}{qw(connections failed actions ended calm refused)};
        }
        my $counters = $result->{counters};
        printf "  RProxyHTTP2Ended: %s\n", join ', ', map { "$_ $counters->{$_}" }
            sort keys %$counters if %$counters;
    }
}

1;
