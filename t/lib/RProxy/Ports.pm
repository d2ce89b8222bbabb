# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Ports that nobody else uses, also while many test files run at once. A port is taken from below
# the range that the kernel gives to outgoing connections, so that no connection can snatch it
# between reserving and listening, and is held by a lock on a file that lasts as long as the
# process. A reserved port without a listener is therefore also a port that refuses connections.
package RProxy::Ports;
use strict;
use warnings;
use Fcntl qw(:flock O_CREAT O_RDWR);
use File::Spec;
use IO::Socket::IP;
use Socket qw(SOCK_STREAM);

use constant {
    FIRST    => 10_000,
    ATTEMPTS => 2_000,
};

my %held;    # port => locked handle
my $owner = $$;

sub _last {
    open my $fh, '<', '/proc/sys/net/ipv4/ip_local_port_range' or return 32_000;
    my ($low) = (readline($fh) // '') =~ /(\d+)/;
    return $low && $low > FIRST + 1_000 ? $low - 1 : 32_000;
}

sub _directory {
    my $directory = File::Spec->catdir(File::Spec->tmpdir, "rproxy-ports-$>");
    mkdir $directory, 0700;
    return $directory;
}

# Whoever releases a port removes its file: a lock on a removed file holds nothing.
sub _is_current {
    my ($lock, $file) = @_;
    my ($locked, $there) = ((stat $lock)[1], (stat $file)[1]);
    return defined $there && $locked == $there;
}

# Bound, but not listening: tells whether anything else has the port, on both address families.
sub _is_free {
    my ($port) = @_;
    for my $host ('127.0.0.1', '::1') {
        my $socket = IO::Socket::IP->new(LocalHost => $host, LocalPort => $port,
            Type => SOCK_STREAM, ReuseAddr => 1);
        next if $socket || ($host eq '::1' && !$!{EADDRINUSE});
        return 0;
    }
    return 1;
}

sub reserve {
    my ($class) = @_;
    my $directory = _directory();
    my $span = _last() - FIRST;
    for (1 .. ATTEMPTS) {
        my $port = FIRST + int rand $span;
        next if $held{$port};
        sysopen my $lock, "$directory/$port", O_CREAT | O_RDWR, 0600
            or die "cannot open $directory/$port: $!\n";
        next unless flock($lock, LOCK_EX | LOCK_NB) && _is_current($lock, "$directory/$port");
        $held{$port} = $lock;
        return $port if _is_free($port);
        $class->release($port);
    }
    die "no free port found in " . ATTEMPTS . " attempts\n";
}

sub release {
    my ($class, @ports) = @_;
    my $directory = _directory();
    for my $port (grep { $held{$_} } @ports) {
        unlink "$directory/$port";
        delete $held{$port};
    }
    return;
}

END { __PACKAGE__->release(keys %held) if $$ == $owner }

1;
