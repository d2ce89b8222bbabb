# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A tunnel as its client sees it, the same way after an upgrade (HTTP/1.1) and after extended
# CONNECT (HTTP/2, RFC 8441): bytes both ways, and how each direction ends.
package RProxy::Tunnel;
use strict;
use warnings;
use Carp ();
use MIME::Base64 qw(encode_base64);
use RProxy::Message;

# Directives that a lane needs for tunnels.
sub directives {
    my ($class, $t) = @_;
    return $t->has_mod_http2 ? ('H2WebSockets on') : ();
}

# Asks for a tunnel; whether it was granted, head() and granted() tell. Options: protocol (over
# HTTP/2 any but websocket is refused by httpd), method, headers, early (bytes sent right behind the
# request, before its answer), client => { options of RProxy::Case's client }.
sub ask {
    my ($class, $t, $target, %options) = @_;
    my $protocol = $options{protocol} // 'websocket';
    my @headers = RProxy::Message::pairs($options{headers});
    push @headers, ['Sec-WebSocket-Version', 13] if $protocol eq 'websocket';
    my $client = $t->client(%{ $options{client} // {} });
    my $self = bless { h2 => $t->is_h2, client => $client }, $class;
    return $self->_connect($target, $protocol, \@headers, $options{early}) if $self->{h2};
    push @headers, ['Sec-WebSocket-Key', encode_base64(pack('N4', map { rand 2**32 } 1 .. 4), '')]
        if $protocol eq 'websocket';
    unshift @headers, ['Upgrade', $protocol], ['Connection', 'Upgrade'];
    push @{ $client->{methods} }, $options{method} // 'GET';
    $client->write(RProxy::HTTP1::request_bytes($options{method} // 'GET', $target, '1.1',
        ['Host', $t->host], @headers) . ($options{early} // ''));
    $self->{exchange} = RProxy::Client::Exchange->new($client);
    return $self;
}

sub _connect {
    my ($self, $target, $protocol, $headers, $early) = @_;
    $self->{client}->wait_settings;
    $self->{exchange} = $self->{client}->begin('CONNECT', $target,
        { headers => $headers, protocol => $protocol, stream => 1 });
    $self->{exchange}->write($early) if length($early // '');
    return $self;
}

# A WebSocket's tunnel that is open; dies if it was not granted. Options: those of ask.
sub open {
    my ($class, $t, $target, %options) = @_;
    return $class->ask($t, $target, %options)->_insist;
}

# The same on an HTTP/2 connection that is there already.
sub over {
    my ($class, $client, $target) = @_;
    my $self = bless { h2 => 1, client => $client }, $class;
    return $self->_connect($target, 'websocket', [['Sec-WebSocket-Version', 13]])->_insist;
}

sub _insist {
    my ($self) = @_;
    Carp::croak('no tunnel: status ' . ($self->head ? $self->head->status : 'none'))
        unless $self->granted;
    return $self;
}

# The head of the answer, undef if there was none.
sub head { return $_[0]{exchange}->head }

sub granted {
    my ($self) = @_;
    my $head = $self->head;
    return $head && $head->status eq ($self->{h2} ? '200' : '101');
}

# The answer of one that was not granted, with its body.
sub response { return $_[0]{exchange}->response }

sub client { return $_[0]{client} }

# What has the methods for bytes.
sub _bytes { return $_[0]{h2} ? $_[0]{exchange} : $_[0]{client} }

sub read_exact { my ($self, @args) = @_; return $self->_bytes->read_exact(@args) }
sub read_until { my ($self, @args) = @_; return $self->_bytes->read_until(@args) }

# Reads meanwhile, so that a peer that sends as much as it gets is no deadlock.
sub write {
    my ($self, $bytes, $timeout) = @_;
    return $self->{exchange}->write($bytes, $timeout) if $self->{h2};
    local $self->{client}{duplex} = 1;
    return $self->{client}->write($bytes, $timeout);
}

# True if nothing arrives for so long.
sub quiet_for {
    my ($self, $seconds) = @_;
    return $self->{client}->quiet_for($seconds);
}

# Ends our direction only.
sub half_close {
    my ($self) = @_;
    $self->{h2} ? $self->{exchange}->finish : $self->{client}->half_close;
    return;
}

# Everything up to the end of the peer's direction; ended() tells how it ended.
sub read_rest {
    my ($self, $timeout) = @_;
    return $self->{client}->read_eof($timeout) unless $self->{h2};
    my $rest = '';
    while ((my $piece = $self->{exchange}->read_some($timeout)) ne '') {
        $rest .= $piece;
    }
    return $rest;
}

# How the peer's direction ended, once read_rest() has returned: eof, or reset, or cut.
sub ended {
    my ($self) = @_;
    return $self->{client}->closed unless $self->{h2};
    return 'eof' if $self->{exchange}{ended};
    return defined $self->{exchange}{reset} ? 'reset' : $self->{client}->stream->closed;
}

# Leaves at once, without a word.
sub abort { return $_[0]{exchange}->abort }

sub close { return $_[0]{client}->close }

1;
