# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A byte stream over TCP, TLS or a Unix socket with a read buffer, for either side of the proxy.
# The socket never blocks; every method has a deadline and dies, saying what it waited for, when it
# passes. That the peer has gone is no error by itself: readers say so by undef, or die where
# the caller asked for an exact amount; closed() tells how it went:
#   eof    the peer closed (over TLS: with close_notify)
#   cut    the peer closed without close_notify (TLS only)
#   reset  RST
package RProxy::Stream;
use strict;
use warnings;
use Carp ();
use Errno qw(EAGAIN EINTR EWOULDBLOCK ECONNRESET EPIPE);
use IO::Select;
use IO::Socket::IP;
use IO::Socket::SSL qw($SSL_ERROR SSL_WANT_READ SSL_WANT_WRITE);
use IO::Socket::UNIX;
use POSIX ();
use RProxy::Wait qw(now seconds);
use Scalar::Util qw(weaken);
use Socket qw(SOL_SOCKET SO_LINGER SO_RCVBUF SOCK_STREAM IPPROTO_TCP TCP_NODELAY
    SHUT_WR SHUT_RDWR);

use constant PIECE => 65_536;

my %open;    # all streams of this process: forked helpers drop them

sub new {
    my ($class, %args) = @_;
    my $self = bless {
        buffer  => '',
        closed  => undef,
        label   => 'stream',
        duplex  => 0,        # read while a write is blocked: a client sending a big body
        timeout => undef,    # seconds of each call, unless the call says otherwise
        %args,
    }, $class;
    $self->{socket}->blocking(0);
    $open{0 + $self} = $self;
    weaken $open{0 + $self};
    return $self;
}

# Connects: host and port, or unix => path; receive_buffer => bytes makes a reader that stalls
# the sender soon.
sub connect {
    my ($class, %args) = @_;
    my ($host, $port, $unix, $receive) = delete @args{qw(host port unix receive_buffer)};
    my $socket;
    if (defined $unix) {
        $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $unix)
            or Carp::croak("cannot connect to $unix: $!");
    }
    else {
        $host //= '127.0.0.1';
        my @options = defined $receive ? (Sockopts => [[SOL_SOCKET, SO_RCVBUF, $receive]]) : ();
        $socket = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port, Type => SOCK_STREAM,
            Timeout => seconds(), @options) or Carp::croak("cannot connect to $host:$port: $@");
        setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
    }
    return $class->new(socket => $socket, %args);
}

sub DESTROY { delete $open{0 + $_[0]}; return }

# In a forked helper: gives up the descriptors of the parent's streams, so that the parent's
# close and reset reach the peer. Their numbers stay taken: Perl counts the handles of each number,
# and would never close a later socket with the number of one that was closed behind its back.
sub drop_inherited {
    open my $null, '<', '/dev/null' or die "/dev/null: $!\n";
    for my $stream (grep { defined } values %open) {
        my $fd = $stream->{socket}->fileno // next;
        POSIX::dup2($null->fileno, $fd);
    }
    %open = ();
    return;
}

# TLS on top, as client or server. Options are those of IO::Socket::SSL.
sub start_tls {
    my ($self, %ssl) = @_;
    $self->{socket}->blocking(1);
    IO::Socket::SSL->start_SSL($self->{socket}, Timeout => seconds(), %ssl)
        or die "$self->{label}: TLS handshake failed: $SSL_ERROR\n";
    $self->{socket}->blocking(0);
    $self->{tls} = 1;
    return $self;
}

sub socket { return $_[0]{socket} }
sub buffer { return $_[0]{buffer} }
sub closed { return $_[0]{closed} }
sub local_port { return $_[0]{socket}->sockport }

sub _deadline {
    my ($self, $timeout) = @_;
    return now() + seconds($timeout // $self->{timeout});
}

sub _expired {
    my ($self, $what) = @_;
    my $have = length $self->{buffer} > 400
        ? substr($self->{buffer}, 0, 400) . '...' : $self->{buffer};
    $have =~ s/([^\x20-\x7e])/$1 eq "\n" ? '\n' : $1 eq "\r" ? '\r' : sprintf '\x%02x', ord $1/ge;
    Carp::croak(sprintf '%s: timed out waiting for %s; unread so far: %d bytes "%s"',
        $self->{label}, $what, length $self->{buffer}, $have);
}

# Waits until the socket can be read or written.
sub _wait {
    my ($self, $for, $deadline, $what) = @_;
    my $left = $deadline - now();
    $self->_expired($what) if $left <= 0;
    my $bits = '';
    vec($bits, $self->{socket}->fileno, 1) = 1;
    my ($read, $write) = ($for ne 'write' ? $bits : undef, $for ne 'read' ? $bits : undef);
    select $read, $write, undef, $left;
    return defined $read && vec($read, $self->{socket}->fileno, 1);
}

sub _gone {
    my ($self) = @_;
    if ($self->{tls} && !$!{ECONNRESET}) {
        my $ssl = $self->{socket}->_get_ssl_object;
        my $notified = $ssl && Net::SSLeay::get_shutdown($ssl) & 2;
        return $self->{closed} = $notified ? 'eof' : 'cut';
    }
    return $self->{closed} = 'reset';
}

# One read without waiting: bytes added, 0 when the peer has gone, undef when nothing is there.
sub _read_now {
    my ($self) = @_;
    return 0 if defined $self->{closed};
    while (1) {
        $! = 0;
        my $got = $self->{socket}->sysread(my $piece, PIECE);
        if ($got) {
            $self->{record}->($piece) if $self->{record};
            $self->{buffer} .= $piece;
            return $got;
        }
        if (defined $got) {
            $self->{tls} ? $self->_gone : ($self->{closed} = 'eof');
            return 0;
        }
        next if $! == EINTR;
        if ($! == EAGAIN || $! == EWOULDBLOCK) {
            $self->{want} = $self->{tls} && $SSL_ERROR == SSL_WANT_WRITE ? 'write' : 'read';
            return undef;
        }
        $self->_gone;
        return 0;
    }
}

# Reads once, waiting for it: bytes added to the buffer, or 0 when the peer has gone.
sub fill {
    my ($self, $what, $deadline) = @_;
    $deadline //= $self->_deadline;
    while (1) {
        my $got = $self->_read_now;
        return $got if defined $got;
        $self->_wait($self->{want}, $deadline, $what // 'bytes');
    }
}

# Takes what is there, waiting for at least one byte; undef when the peer has gone.
sub read_some {
    my ($self, $timeout) = @_;
    $self->fill('any bytes', $self->_deadline($timeout)) if $self->{buffer} eq '';
    return undef if $self->{buffer} eq '';
    return substr $self->{buffer}, 0, length $self->{buffer}, '';
}

# Everything up to the end of the pattern's match; undef if the peer went before (what came stays
# in the buffer).
sub take_until {
    my ($self, $pattern, $what, $timeout) = @_;
    my $deadline = $self->_deadline($timeout);
    while (1) {
        return substr $self->{buffer}, 0, $+[0], '' if $self->{buffer} =~ $pattern;
        return undef unless $self->fill($what // "match of $pattern", $deadline);
    }
}

sub read_until {
    my ($self, $pattern, $timeout) = @_;
    return $self->take_until($pattern, undef, $timeout)
        // $self->_early("match of $pattern");
}

# Exactly $length bytes, or undef if the peer went before.
sub take_exact {
    my ($self, $length, $timeout) = @_;
    my $deadline = $self->_deadline($timeout);
    while (length $self->{buffer} < $length) {
        return undef unless $self->fill("$length bytes", $deadline);
    }
    return substr $self->{buffer}, 0, $length, '';
}

sub read_exact {
    my ($self, $length, $timeout) = @_;
    return $self->take_exact($length, $timeout) // $self->_early("$length bytes");
}

sub _early {
    my ($self, $what) = @_;
    Carp::croak("$self->{label}: peer gone ($self->{closed}) before $what; unread: "
            . length($self->{buffer}) . ' bytes');
}

# Reads and throws away $length bytes, for bulk; dies if the peer goes before.
sub skip {
    my ($self, $length, $timeout) = @_;
    while ($length > 0) {
        my $piece = $self->read_some($timeout) // $self->_early("$length more bytes");
        $self->{buffer} = substr $piece, $length if length $piece > $length;
        $length -= length $piece;
    }
    return;
}

# Everything until the peer has gone; closed() tells how.
sub read_eof {
    my ($self, $timeout) = @_;
    my $deadline = $self->_deadline($timeout);
    1 while $self->fill('the end of the stream', $deadline);
    return substr $self->{buffer}, 0, length $self->{buffer}, '';
}

# Waits until the peer has gone, keeping what it sent in the buffer; returns closed().
sub wait_closed {
    my ($self, $timeout) = @_;
    my $deadline = $self->_deadline($timeout);
    1 while $self->fill('the peer to close', $deadline);
    return $self->{closed};
}

# True if nothing arrives and nobody closes for so long: only to show that something does NOT
# happen, where there is no event to wait for.
sub quiet_for {
    my ($self, $seconds) = @_;
    return 0 if $self->{buffer} ne '' || defined $self->{closed};
    my $end = now() + $seconds;
    while (1) {
        return 0 if defined $self->_read_now;
        my $left = $end - now();
        return 1 if $left <= 0;
        my $bits = '';
        vec($bits, $self->{socket}->fileno, 1) = 1;
        select $bits, undef, undef, $left;
    }
}

# Writes all bytes; false if the peer has gone meanwhile.
sub write {
    my ($self, $bytes, $timeout) = @_;
    my $deadline = $self->_deadline($timeout);
    my $done = 0;
    while ($done < length $bytes) {
        my $piece = substr $bytes, $done, PIECE;
        my $wrote = $self->{socket}->syswrite($piece, length $piece);
        if (defined $wrote) {
            $done += $wrote;
            next;
        }
        next if $! == EINTR;
        if ($! != EAGAIN && $! != EWOULDBLOCK) {
            $self->{closed} //= 'reset' unless $self->{duplex};
            return 0;
        }
        my $wants_read = $self->{tls} && $SSL_ERROR == SSL_WANT_READ;
        my $for = $wants_read ? 'read' : $self->{duplex} ? 'both' : 'write';
        my $readable = $self->_wait($for, $deadline,
            sprintf 'room to write, %d of %d bytes written', $done, length $bytes);
        return 0 if $readable && $self->{duplex} && defined($self->_read_now)
            && defined $self->{closed};
    }
    return 1;
}

# Bytes that can be written without waiting (at most all of them): how far the other side takes.
sub write_now {
    my ($self, $bytes) = @_;
    my $done = 0;
    while ($done < length $bytes) {
        my $wrote = $self->{socket}->syswrite(substr($bytes, $done, PIECE));
        last unless $wrote;
        $done += $wrote;
    }
    return $done;
}

# No more bytes from us; the other direction stays open.
sub half_close {
    my ($self) = @_;
    Net::SSLeay::shutdown($self->{socket}->_get_ssl_object) if $self->{tls};
    shutdown $self->{socket}, SHUT_WR;
    return;
}

# The shutdown makes the FIN go out even if a forked helper still holds the descriptor.
sub close {
    my ($self) = @_;
    return unless $self->{socket} && $self->{socket}->opened;
    if ($self->{tls}) {
        my $ssl = $self->{socket}->_get_ssl_object;
        Net::SSLeay::shutdown($ssl) if $ssl && !defined $self->{closed};
    }
    $self->cut;
    return;
}

# FIN, over TLS without close_notify: a truncation.
sub cut {
    my ($self) = @_;
    return unless $self->{socket}->opened;
    shutdown $self->{socket}, SHUT_RDWR;
    $self->_close_descriptor;
    return;
}

# RST.
sub reset {
    my ($self) = @_;
    setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    $self->_close_descriptor;
    return;
}

sub _close_descriptor {
    my ($self) = @_;
    my @quietly = $self->{tls} ? (SSL_no_shutdown => 1) : ();
    $self->{socket}->close(@quietly);
    $self->{closed} //= 'here';
    return;
}

1;
