# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# An HTTP/1.x client, byte exact where the test writes bytes itself: a stream with requests and
# responses on top, for keep-alive and pipelining.
package RProxy::Client;
use strict;
use warnings;
use parent 'RProxy::Stream';
use RProxy::HTTP1;
use RProxy::Message;

# Options: those of RProxy::Stream's connect, host_header, and tls => { IO::Socket::SSL options }.
sub connect {
    my ($class, %args) = @_;
    my $tls = delete $args{tls};
    my $self = $class->SUPER::connect(label => 'client', methods => [], %args);
    $self->start_tls(%$tls) if $tls;
    return $self;
}

# Sends one request; options: headers, host, version, body, chunked, trailers, expect, stream.
# Host comes first unless the headers have one or host => ''.
sub begin {
    my ($self, $method, $target, $options) = @_;
    my %options = %{ $options // {} };
    my @headers = RProxy::Message::pairs($options{headers});
    my %has = map { lc $_->[0] => 1 } @headers;
    my $host = $options{host} // $self->{host_header};
    unshift @headers, ['Host', $host] if !$has{host} && length($host // '');
    push @headers, ['Expect', '100-continue'] if $options{expect} && !$has{expect};
    my $framed = $has{'content-length'} || $has{'transfer-encoding'};
    my $body = $options{body};
    my $chunked = $options{chunked} || $options{trailers}
        || (!$framed && ($options{stream} || ref $body));
    $chunked = 0 if $framed;
    push @headers, ['Transfer-Encoding', 'chunked'] if $chunked;
    push @headers, ['Content-Length', length $body] if defined $body && !$chunked && !$framed;
    push @{ $self->{methods} }, $method;
    $self->write(RProxy::HTTP1::request_bytes($method, $target, $options{version} // '1.1',
        @headers));
    my $exchange = RProxy::Client::Exchange->new($self, $chunked);
    return $exchange->send_body(\%options);
}

# As begin(), and reads the response.
sub request {
    my ($self, $method, $target, $options) = @_;
    return $self->begin($method, $target, $options)->response(($options // {})->{timeout});
}

sub get {
    my ($self, $target, @headers) = @_;
    return $self->request('GET', $target, { headers => \@headers });
}

# The response to the oldest request not yet answered; for requests written as bytes, say
# method => 'HEAD' where the request was one.
sub read_response {
    my ($self, %args) = @_;
    push @{ $self->{methods} }, $args{method} // 'GET' unless @{ $self->{methods} };
    return RProxy::Client::Exchange->new($self)->response($args{timeout});
}

sub read_head { return RProxy::HTTP1::read_head(@_) }

package RProxy::Client::Exchange;
use strict;
use warnings;
use parent -norequire, 'RProxy::Exchange';
use RProxy::Exchange;

sub new {
    my ($class, $client, $chunked) = @_;
    return bless {
        client  => $client,
        chunked => $chunked,
        interim => [],
        head    => undef,
        body    => undef,    # RProxy::HTTP1::Body
        unread  => '',       # read from the body, not yet given to the test
        taken   => '',       # given to the test piecewise
    }, $class;
}

sub client { return $_[0]{client} }
sub version { return '1.1' }
sub quiet_for { my ($self, $seconds) = @_; return $self->{client}->quiet_for($seconds) }

sub error {
    my ($self) = @_;
    my $closed = $self->{client}->closed;
    return defined $closed ? "connection ended by $closed before a response" : undef;
}

sub write {
    my ($self, $bytes, $timeout) = @_;
    $bytes = RProxy::HTTP1::chunk_bytes($bytes) if $self->{chunked};
    local $self->{client}{duplex} = 1;
    return $self->{client}->write($bytes, $timeout);
}

sub finish {
    my ($self, @trailers) = @_;
    return 1 unless $self->{chunked};
    return $self->{client}->write(RProxy::HTTP1::last_chunk_bytes(@trailers));
}

sub next_head {
    my ($self, $timeout) = @_;
    return undef if $self->{head};
    my $head = RProxy::HTTP1::read_head($self->{client}, $timeout) // return undef;
    if ($head->status =~ /^1/ && $head->status ne '101') {
        push @{ $self->{interim} }, $head;
        return $head;
    }
    my $method = shift @{ $self->{client}{methods} };
    $self->{body} = RProxy::HTTP1::Body->new($self->{client}, $head->body_framing($method));
    return $self->{head} = $head;
}

sub read_some {
    my ($self, $timeout) = @_;
    return substr $self->{unread}, 0, length $self->{unread}, '' if $self->{unread} ne '';
    $self->head($timeout) or return '';
    return $self->{body}->next($timeout);
}

sub settle {
    my ($self, $message) = @_;
    @$message{qw(complete error trailers framing)}
        = @{ $self->{body} }{qw(complete error trailers framing)};
    return;
}

sub abort { return $_[0]{client}->reset }
sub close { return $_[0]{client}->close }

1;
