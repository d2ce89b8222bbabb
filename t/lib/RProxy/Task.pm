# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A sub that runs in a process of its own and whose result comes back.
package RProxy::Task;
use strict;
use warnings;
use Carp ();
use IO::Handle;
use POSIX ();
use RProxy::Wait qw(now seconds);
use Storable ();

use constant EXTRA_SECONDS => 30;    # beyond the waits inside the sub, which name what they miss

sub new {
    my ($class, $code) = @_;
    pipe my $reader, my $writer or die "pipe: $!\n";
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        close $reader;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        my @result = eval { (1, scalar $code->()) };
        @result = (0, "$@") unless @result;
        my $frozen = eval { Storable::freeze(\@result) }
            // Storable::freeze([0, "result cannot travel: $@"]);
        binmode $writer;
        print $writer $frozen;
        $writer->flush;
        POSIX::_exit(0);
    }
    close $writer;
    return bless { pid => $pid, reader => $reader, frozen => '' }, $class;
}

# What the sub returned (in scalar context); dies as the sub died.
sub result {
    my ($self, $seconds) = @_;
    my $end = now() + seconds($seconds // EXTRA_SECONDS);
    while ($self->{reader}) {
        my $left = $end - now();
        my $bits = '';
        vec($bits, $self->{reader}->fileno, 1) = 1;
        if ($left <= 0 || !select $bits, undef, undef, $left) {
            $self->kill;
            Carp::croak('timed out waiting for a background task');
        }
        next if sysread $self->{reader}, $self->{frozen}, 65_536, length $self->{frozen};
        $self->_reap;
    }
    my ($fine, $value) = @{ Storable::thaw($self->{frozen})
        // Carp::croak('a background task ended without a result') };
    die $value unless $fine;
    return $value;
}

sub _reap {
    my ($self) = @_;
    close delete $self->{reader} if $self->{reader};
    my $pid = delete $self->{pid} // return;
    waitpid $pid, 0;
    return;
}

sub kill {
    my ($self) = @_;
    CORE::kill('KILL', $self->{pid}) if $self->{pid};
    $self->_reap;
    return;
}

1;
