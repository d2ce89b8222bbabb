# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# A request or response as a test sees it, from HTTP/1.x or HTTP/2. Plain data: it can travel
# between processes. Fields, all readable as methods:
#   version  '1.0', '1.1', '2'
#   method, target                  requests
#   status, reason                  responses; reason is '' over HTTP/2
#   headers  [[name, value], ...]   in order, names as they came
#   raw_head                        bytes of the head (HTTP/1.x)
#   body, trailers                  decoded body, trailers as headers
#   interim  [messages]             1xx before a response
#   complete                        false when the message broke off or its framing was wrong
#   error                           why it is not complete
package RProxy::Message;
use strict;
use warnings;

for my $field (qw(version method target status reason headers raw_head body trailers interim
    complete error framing connection)) {
    no strict 'refs';
    *$field = sub { return $_[0]{$field} };
}

sub new {
    my ($class, %args) = @_;
    return bless {
        headers => [], trailers => [], interim => [], body => '', complete => 0, reason => '',
        %args,
    }, $class;
}

# [[k, v], ...] from that form, or from a flat list k, v, ...
sub pairs {
    my ($headers) = @_;
    my @headers = @{ $headers // [] };
    return @headers if !@headers || ref $headers[0];
    my @pairs;
    push @pairs, [splice @headers, 0, 2] while @headers;
    return @pairs;
}

# A head as it came, without its empty line or with it. Returns undef for what has no start line
# of HTTP/1.x.
sub parse {
    my ($class, $raw) = @_;
    my ($line, @fields) = split /\r?\n/, $raw;
    my %start;
    if (($line // '') =~ m{^HTTP/(\d\.\d) (\d{3})(?: (.*))?$}) {
        %start = (version => $1, status => $2, reason => $3 // '');
    }
    elsif (($line // '') =~ m{^(\S+) (.*) HTTP/(\d\.\d)$}) {
        %start = (version => $3, method => $1, target => $2);
    }
    else {
        return undef;
    }
    return $class->new(%start, raw_head => $raw, headers => parse_fields(@fields));
}

sub parse_fields {
    return [map { /^([^:]*):[ \t]*(.*?)[ \t]*$/s ? [$1, $2] : [$_, ''] } @_];
}

sub _all {
    my ($fields, $name) = @_;
    return map { $_->[1] } grep { lc $_->[0] eq lc $name } @$fields;
}

sub headers_all { my ($self, $name) = @_; return _all($self->{headers}, $name) }
sub header { my ($self, $name) = @_; return (_all($self->{headers}, $name))[0] }
sub trailer { my ($self, $name) = @_; return (_all($self->{trailers}, $name))[0] }

# Names in order, lower case.
sub header_names { return map { lc $_->[0] } @{ $_[0]{headers} } }

# How the body is delimited: none, chunked, length (the second value) or close.
sub body_framing {
    my ($self, $request_method) = @_;
    if (defined $self->{status}) {
        return 'none' if $self->{status} =~ /^(?:1..|204|304)$/ || ($request_method // '') eq 'HEAD'
            || (($request_method // '') eq 'CONNECT' && $self->{status} =~ /^2/);
    }
    return 'chunked' if ($self->header('Transfer-Encoding') // '') =~ /chunked\s*$/i;
    my $length = $self->header('Content-Length');
    return ('length', $length) if defined $length;
    return defined $self->{status} ? 'close' : 'none';
}

1;
