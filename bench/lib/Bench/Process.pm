# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A process the bench has started, with all its children: started, watched, stopped by pid.
package Bench::Process;
use strict;
use warnings;
use IO::Socket::INET;
use POSIX qw(:sys_wait_h _exit);
use Time::HiRes qw(sleep time);

my $ticks = POSIX::sysconf(&POSIX::_SC_CLK_TCK);
my %running;

# start(command => [...], log => FILE, ports => [...], environment => {...}): returns once every port
# is being listened on; dies with the end of the log where the process ends before.
sub start {
    my ($class, %args) = @_;
    my $pid = fork() // die "bench: fork: $!\n";
    if ($pid == 0) {
        %ENV = (%ENV, %{$args{environment} // {}});
        open(STDIN, '<', '/dev/null') && open(STDOUT, '>>', $args{log})
            && open(STDERR, '>&', \*STDOUT) && exec { $args{command}[0] } @{$args{command}};
        _exit(127);
    }
    my $self = bless { pid => $pid, log => $args{log} }, $class;
    $running{$pid} = $self;
    my $until = time + 20;
    for my $port (@{$args{ports}}) {
        until (listening($port)) {
            if (waitpid($pid, WNOHANG) == $pid || time > $until) {
                my $tail = `tail -n 5 '$args{log}'`;
                $self->stop;
                die "bench: $args{command}[0] did not start:\n$tail";
            }
            sleep 0.02;
        }
    }
    return $self;
}

# Asks the process to end, and ends what is left of its tree after ten seconds. Its wait status is
# in {exit} then.
sub stop {
    my ($self) = @_;
    my $pid = $self->{pid};
    return unless delete $running{$pid};
    my @tree = $self->tree;
    kill TERM => $pid;
    my $until = time + 10;
    while (time < $until) {
        my $ended = waitpid($pid, WNOHANG);
        $self->{exit} = $? if $ended == $pid;
        return if $ended != 0 && !grep { lives($_) } @tree;
        sleep 0.02;
    }
    kill KILL => @tree;
    $self->{exit} = $? if waitpid($pid, 0) == $pid;
}

# Ends it at once, without a chance to end well.
sub kill_now {
    my ($self) = @_;
    delete $running{$self->{pid}} or return;
    kill KILL => $self->{pid};
    waitpid($self->{pid}, 0);
}

# How many descriptors a process has open: those that are pipes, or the others.
sub descriptors {
    my ($pid, $pipes) = @_;
    opendir(my $dir, "/proc/$pid/fd") or return 0;
    my @open = grep { defined } map { readlink "/proc/$pid/fd/$_" } grep { !/^\./ } readdir $dir;
    return scalar grep { /^pipe:/ ? $pipes : !$pipes } @open;
}

sub stop_all { $_->stop for values %running }

# The pids of the process and all its descendants.
sub tree {
    my ($self) = @_;
    my %children;
    for my $stat (glob '/proc/[0-9]*/stat') {
        my @field = stat_fields($stat) or next;
        push @{$children{$field[1]}}, $stat =~ m{(\d+)};
    }
    my @tree = ($self->{pid});
    for (my $i = 0; $i < @tree; $i++) {
        push @tree, @{$children{$tree[$i]} // []};
    }
    return grep { -e "/proc/$_" } @tree;
}

# Whether a process still runs: one that only waits to be collected does not.
sub lives {
    my ($pid) = @_;
    my ($state) = stat_fields("/proc/$pid/stat") or return 0;
    return $state ne 'Z';
}

# CPU seconds used so far by the tree, children that have ended included.
sub cpu {
    my ($self) = @_;
    my $sum = 0;
    for my $pid ($self->tree) {
        my @field = stat_fields("/proc/$pid/stat") or next;
        $sum += $_ for @field[11 .. 14];
    }
    return $sum / $ticks;
}

# Memory of the tree in KiB: { rss, pss, private }. pss counts a shared page once over all
# processes that share it; private is what nobody shares.
sub memory {
    my ($self) = @_;
    my %sum = (rss => 0, pss => 0, private => 0);
    for my $pid ($self->tree) {
        my $text = read_file("/proc/$pid/smaps_rollup");
        $sum{rss} += $1 if $text =~ /^Rss:\s+(\d+)/m;
        $sum{pss} += $1 if $text =~ /^Pss:\s+(\d+)/m;
        $sum{private} += $1 while $text =~ /^Private_(?:Clean|Dirty):\s+(\d+)/mg;
    }
    return \%sum;
}

# Sets each process's peak of resident memory back to what it uses now, where the kernel allows.
sub reset_peaks {
    my ($self) = @_;
    for my $pid ($self->tree) {
        open(my $out, '>', "/proc/$pid/clear_refs") or next;
        print $out "5\n";
    }
}

# pid => peak of resident memory (VmHWM) in KiB, for each process of the tree.
sub peaks {
    my ($self) = @_;
    return map { $_ => read_file("/proc/$_/status") =~ /^VmHWM:\s+(\d+)/m ? $1 : 0 } $self->tree;
}

sub read_file {
    my ($path) = @_;
    open(my $in, '<', $path) or return '';
    local $/;
    return readline($in) // '';
}

# The fields of /proc/PID/stat after the name: 0 state, 1 parent, 11 utime, 12 stime, 13 and 14
# the same of children that have been waited for.
sub stat_fields {
    my ($path) = @_;
    my $text = read_file($path);
    return unless $text =~ s/^.*\) //s;
    return split ' ', $text;
}

sub listening {
    my ($port) = @_;
    return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 1);
}

# A port nobody listens on, below the range the kernel takes outgoing ports from.
sub free_port {
    for (1 .. 1000) {
        my $port = 20000 + int(rand 12000);
        return $port
            if IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1,
                                     ReuseAddr => 1);
    }
    die "bench: no free port\n";
}

1;
