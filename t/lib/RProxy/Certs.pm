# Copyright 2026 The mod_rproxy authors
# SPDX-License-Identifier: Apache-2.0

# Certificates for one test file, made with OpenSSL when they are asked for: a CA, and servers and
# clients below it. An elliptic curve key takes a millisecond or so: nothing needs to be shared.
package RProxy::Certs;
use strict;
use warnings;
use IO::Socket::SSL::Utils;

sub new {
    my ($class, $directory) = @_;
    my $self = bless { directory => $directory, made => {} }, $class;
    mkdir $directory;
    $self->{ca} = $self->_make('ca', CA => 1, subject => { CN => 'Test CA' });
    return $self;
}

# The file to verify against.
sub ca_file { return $_[0]{ca}{cert} }

# { cert, key }: files of a server certificate for these names ('IP:...' for addresses). Options:
# expired => 1, untrusted => 1 (another CA).
sub server {
    my ($self, $names, %options) = @_;
    my @names = map { /^IP:(.*)/ ? [IP => $1] : [DNS => $_] } @$names;
    return $self->_issue("server @$names", \%options, subject => { CN => $names->[0] },
        subjectAltNames => \@names, purpose => { server => 1 });
}

sub client {
    my ($self, $name, %options) = @_;
    return $self->_issue("client $name", \%options, subject => { CN => $name },
        purpose => { client => 1 });
}

sub _issue {
    my ($self, $what, $options, %args) = @_;
    my $id = join ' ', $what, map { "$_=$options->{$_}" } sort keys %$options;
    return $self->{made}{$id} //= do {
        my $issuer = $self->{ca};
        if ($options->{untrusted}) {
            $issuer = $self->{made}{'other ca'}
                //= $self->_make('other-ca', CA => 1, subject => { CN => 'Other CA' });
        }
        my $day = 86_400;
        $args{not_before} = time - 2 * $day;
        $args{not_after} = $options->{expired} ? time - $day : time + 30 * $day;
        my $number = keys %{ $self->{made} };
        $self->_make("certificate-$number",
            issuer => [@$issuer{qw(x509 pkey)}], %args);
    };
}

sub _make {
    my ($self, $file, %args) = @_;
    my $pkey = KEY_create_ec();
    my ($x509) = CERT_create(key => $pkey, %args);
    my %made = (cert => "$self->{directory}/$file.pem", key => "$self->{directory}/$file.key",
        x509 => $x509, pkey => $pkey);
    PEM_cert2file($x509, $made{cert});
    PEM_key2file($pkey, $made{key});
    return \%made;
}

1;
