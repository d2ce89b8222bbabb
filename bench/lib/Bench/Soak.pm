# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What bench/soak is made of: httpd with the engine, backends that can be killed, the clients, and
# what all of them hold of memory and descriptors.
package Bench::Soak;
use strict;
use warnings;
use IPC::Open2;
use JSON::PP qw(decode_json);
use Bench::Peer::Httpd;
use Bench::Process;
use Time::HiRes qw(sleep time);

# Two children all the time: no other number of them is ever wanted, so that what is compared is
# the same. The spare places are for children that end after a graceful restart.
my $children = 2;

# Descriptors of the pipes that a child with a loop for each of 4 CPUs may keep (RP_ENGINE_PIPES).
my $pipes_kept = 4 * 64 * 2;

# In the error log, none of these may be.
my $trouble = qr/exit signal|Segmentation fault|AH0005[12]:|AH0004[5-7]:|assertion|Sanitizer
    |runtime error:|double free|stack smashing|corrupted/xi;

# dir, port, tls, cert, key, backends (ports): a running httpd.
sub start_httpd {
    my (%args) = @_;
    my $dir = $args{dir};
    mkdir "$dir/findings";
    chmod 01777, "$dir/findings";
    my $names = 'a';
    my $rules = join '', map {
        my $name = $names++;
        "RProxyPass /$name/ http://127.0.0.1:$_/\n"
            . "<Location \"/$name/pipeline\">\n    Header set X-Lane pipeline\n</Location>\n"
    } @{$args{backends}};
    my $settings = <<"EOT";
ServerLimit 16
StartServers $children
ThreadsPerChild 16
ThreadLimit 16
MaxRequestWorkers @{[16 * $children]}
MinSpareThreads @{[16 * $children]}
MaxSpareThreads @{[32 * $children]}
AsyncRequestWorkerFactor 200
KeepAliveTimeout 30
MaxKeepAliveRequests 0
LogLevel notice
CustomLog /dev/null "%h %l %u %t \\"%r\\" %>s %O"
RProxyEngine on
RProxyKeepAlive idle=2s
EOT
    my $modules = Bench::Peer::Httpd::load_modules(['rproxy'], qw(headers reqtimeout));
    return Bench::Peer::Httpd::launch(%args, modules => $modules, settings => $settings,
                                      service => $rules, environment => environment($dir));
}

# A build with sanitizers needs their libraries in httpd; findings go to files of their own.
sub environment {
    my ($dir) = @_;
    my $preload = $ENV{RPROXY_PRELOAD} or return {};
    my $common = "log_path=$dir/findings/sanitizer:print_stacktrace=1";
    return {
        LD_PRELOAD => $preload,
        ASAN_OPTIONS => "detect_leaks=0:abort_on_error=0:quarantine_size_mb=16:$common",
        map { ("${_}_OPTIONS" => $common) } qw(UBSAN TSAN),
    };
}

# ---- the clients --------------------------------------------------------------------------------

# command: soak_client with its arguments.
sub start_clients {
    my (@command) = @_;
    my $pid = open2(my $out, my $in, @command);
    return { pid => $pid, out => $out, in => $in };
}

# Returns once the clients have done it.
sub order {
    my ($clients, $command) = @_;
    local $SIG{PIPE} = 'IGNORE';
    print {$clients->{in}} "$command\n";
    $clients->{in}->flush;
    my $answer = readline($clients->{out}) // '';
    die "soak: the clients do not answer \"$command\"\n" unless $answer eq "ok\n";
}

# Ends them: what they counted.
sub stop_clients {
    my ($clients) = @_;
    order($clients, 'stop');
    my $counted = readline($clients->{out}) // '';
    waitpid(delete $clients->{pid}, 0);
    return decode_json($counted);
}

# ---- what is held -------------------------------------------------------------------------------

sub figures {
    my ($pid) = @_;
    my $rollup = Bench::Process::read_file("/proc/$pid/smaps_rollup");
    my $status = Bench::Process::read_file("/proc/$pid/status");
    return {
        descriptors => Bench::Process::descriptors($pid),
        pipes => Bench::Process::descriptors($pid, 1),
        rss => $rollup =~ /^Rss:\s+(\d+)/m ? $1 : 0,
        pss => $rollup =~ /^Pss:\s+(\d+)/m ? $1 : 0,
        anonymous => $status =~ /^RssAnon:\s+(\d+)/m ? $1 : 0,
    };
}

# Waits until the old children have ended, and the number of descriptors is the same for three
# seconds; returns { parent => figures, children => [figures, ...], settled => bool }.
sub settle {
    my ($process, $most) = @_;
    my ($until, $since, $last) = (time + $most, time, '');
    my ($parent, @pids);
    while (time < $until) {
        ($parent, @pids) = $process->tree;
        my $now = join ' ', map { "$_:" . Bench::Process::descriptors($_) } $parent, @pids;
        ($last, $since) = ($now, time) if $now ne $last;
        last if @pids == $children && time > $since + 3;
        sleep 0.1;
    }
    return { parent => figures($parent), children => [map { figures($_) } @pids],
             pids => \@pids, settled => @pids == $children && time > $since + 3 };
}

# What is wrong after a comparison of two such: a list of texts. Descriptors must be as before, but
# for the pipes that loops keep for the next large body; of memory, what is the allocator's own (its
# arenas, fragments) may have grown.
sub compare {
    my ($what, $before, $after, $memory) = @_;
    my @wrong;
    push @wrong, "$what: descriptors: $before->{descriptors} before, $after->{descriptors} after"
        if $after->{descriptors} > $before->{descriptors};
    push @wrong, "$what: $after->{pipes} descriptors of pipes" if $after->{pipes} > $pipes_kept;
    my $most = $before->{anonymous} * 1.25 + 8192;
    push @wrong, sprintf '%s: memory: %d KiB before, %d KiB after', $what, $before->{anonymous},
        $after->{anonymous} if $memory && $after->{anonymous} > $most;
    return @wrong;
}

# What the error log and the sanitizers have to say.
sub troubles {
    my ($dir) = @_;
    my @lines = grep { /$trouble/ } split /\n/, Bench::Process::read_file("$dir/error.log");
    for my $file (glob "$dir/findings/*") {
        push @lines, grep { length } (split /\n/, Bench::Process::read_file($file))[0 .. 30];
    }
    return @lines;
}

1;
