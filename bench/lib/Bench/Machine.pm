# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# What the figures were measured on.
package Bench::Machine;
use strict;
use warnings;
use POSIX ();
use Bench::Process;

sub describe {
    my ($os) = Bench::Process::read_file('/etc/os-release') =~ /^PRETTY_NAME="?([^"\n]+)/m;
    my $cpuinfo = Bench::Process::read_file('/proc/cpuinfo');
    my ($cpu) = $cpuinfo =~ /^model name\s*:\s*(.+)$/m;
    my ($memory) = Bench::Process::read_file('/proc/meminfo') =~ /^MemTotal:\s+(\d+)/m;
    return {
        date => POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime),
        system => $os // 'unknown',
        kernel => join(' ', (POSIX::uname())[0, 2, 4]),
        cpu => $cpu // 'unknown',
        cores => cores(),
        memory_mib => int($memory / 1024),
        open_files => POSIX::sysconf(&POSIX::_SC_OPEN_MAX),
        load_average => load_average(),
    };
}

sub cores { return scalar(() = Bench::Process::read_file('/proc/cpuinfo') =~ /^processor\s*:/mg) }

sub load_average { 0 + (split ' ', Bench::Process::read_file('/proc/loadavg'))[0] }

1;
